"""What two runs of the same tests have in common, and what not; pure."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Of the outcomes of one test and its parts, the first counts.
ORDER = (
    "error",
    "failure",
    "unexpected success",
    "skipped",
    "expected failure",
    "ok",
)
BAD = ORDER[:3]
# No outcome: the test is not in this run.
ABSENT = "not run"


class UnfinishedError(Exception):
    """A run ended before its tests did."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test; *detail* is the reason of a skip or failure."""

    status: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.status} ({self.detail})" if self.detail else self.status

    def equals(self, other: "Outcome") -> bool:
        """Whether both are the same: skips with their reason, failures without."""
        is_skip = self.status == "skipped"
        return self.status == other.status and (
            not is_skip or self.detail == other.detail
        )


Results = Mapping[str, Outcome]


def read(lines: Iterable[str]) -> dict[str, Outcome]:
    """Return the results in a recorder's *lines*; raises UnfinishedError."""
    results: dict[str, Outcome] = {}
    is_finished = False
    for line in lines:
        told = json.loads(line)
        if told.get("finished"):
            is_finished = True
            continue
        test, new = told["test"], Outcome(told["status"], told["detail"])
        old = results.get(test, new)
        results[test] = min(old, new, key=lambda o: ORDER.index(o.status))
    if not is_finished:
        raise UnfinishedError
    return results


def counts(results: Results) -> Counter[str]:
    """Return how many tests had which outcome."""
    return Counter(outcome.status for outcome in results.values())


@dataclass(frozen=True, slots=True)
class Difference:
    """A test that did not end in the same way in *ours* and *stock*."""

    test: str
    ours: Outcome
    stock: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs side by side; what is in none of the lists was the same and good."""

    differing: list[Difference]
    # By design, with the reason.
    designed: list[tuple[Difference, str]] = field(default_factory=list)
    # The same failure on both.
    shared: list[Difference] = field(default_factory=list)


def compare(ours: Results, stock: Results, designed: Mapping[str, str]) -> Comparison:
    """Compare *ours* with *stock*; *designed* has reasons for tests that may differ."""
    nothing = Outcome(ABSENT)
    ours, stock = _aligned(ours, stock), _aligned(stock, ours)
    pairs = [
        Difference(test, ours.get(test, nothing), stock.get(test, nothing))
        for test in sorted({*ours, *stock})
    ]
    unequal = [pair for pair in pairs if not pair.ours.equals(pair.stock)]
    return Comparison(
        differing=[pair for pair in unequal if pair.test not in designed],
        designed=[(p, designed[p.test]) for p in unequal if p.test in designed],
        shared=[
            pair
            for pair in pairs
            if pair.ours.equals(pair.stock) and pair.ours.status in BAD
        ],
    )


def _aligned(results: Results, others: Results) -> Results:
    """
    Return *results* with the classes' own outcomes under the names of *others*.

    What befalls a class before its first test bears its name in a single process;
    among several, that of one of its tests.
    """
    aligned = dict(results)
    for name in {*others} - {*results}:
        its_class = label(name)
        if its_class == name:
            continue
        tests = (t for t in {*results} - {*others} if t.startswith(f"{its_class}."))
        match = [t for t in tests if results[t].equals(others[name])]
        if len(match) == 1:
            aligned[name] = aligned.pop(match[0])
    return aligned


def label(test: str) -> str:
    """Return what Django's runner calls *test*: a failed class stands for its tests."""
    for name in ("setUpClass (", "tearDownClass ("):
        if test.startswith(name):
            return test.removeprefix(name).removesuffix(")")
    return test

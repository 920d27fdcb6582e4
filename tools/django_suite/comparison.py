"""Comparison of two runs of the same tests, without I/O."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# From worst to best: a test has the worst outcome of all its parts.
STATUSES = (
    "error",
    "failure",
    "unexpected success",
    "skipped",
    "expected failure",
    "ok",
)
BAD = STATUSES[:3]
# The status of a test that one of the runs did not contain.
ABSENT = "not run"


class UnfinishedError(Exception):
    """A run ended before all its tests had run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a test; *detail* is the reason of a skip or failure."""

    status: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.status} ({self.detail})" if self.detail else self.status

    def equals(self, other: "Outcome") -> bool:
        """Return whether statuses are equal, and for skips also the reasons."""
        is_skip = self.status == "skipped"
        return self.status == other.status and (
            not is_skip or self.detail == other.detail
        )


Results = Mapping[str, Outcome]


def read_results(lines: Iterable[str]) -> dict[str, Outcome]:
    """Return the results in a recorder's *lines*; raises `UnfinishedError`."""
    results: dict[str, Outcome] = {}
    is_finished = False
    for line in lines:
        entry = json.loads(line)
        if entry.get("finished"):
            is_finished = True
            continue
        test, new = entry["test"], Outcome(entry["status"], entry["detail"])
        old = results.get(test, new)
        results[test] = min(old, new, key=lambda o: STATUSES.index(o.status))
    if not is_finished:
        raise UnfinishedError
    return results


def count_statuses(results: Results) -> Counter[str]:
    """Return the number of tests with each status."""
    return Counter(outcome.status for outcome in results.values())


@dataclass(frozen=True, slots=True)
class Difference:
    """The outcomes of one test on both backends."""

    test: str
    ours: Outcome
    stock: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """
    The result of comparing two runs.

    Tests with the same good outcome in both runs are in none of the lists.
    """

    differences: list[Difference]
    # Differences by design, with the reasons.
    expected: list[tuple[Difference, str]] = field(default_factory=list)
    # Tests that failed on both backends.
    shared_failures: list[Difference] = field(default_factory=list)


def compare(ours: Results, stock: Results, expected: Mapping[str, str]) -> Comparison:
    """Compare *ours* with *stock*; *expected* maps tests that may differ to reasons."""
    absent = Outcome(ABSENT)
    ours, stock = _align_classes(ours, stock), _align_classes(stock, ours)
    pairs = [
        Difference(test, ours.get(test, absent), stock.get(test, absent))
        for test in sorted({*ours, *stock})
    ]
    unequal = [pair for pair in pairs if not pair.ours.equals(pair.stock)]
    return Comparison(
        differences=[pair for pair in unequal if pair.test not in expected],
        expected=[(p, expected[p.test]) for p in unequal if p.test in expected],
        shared_failures=[
            pair
            for pair in pairs
            if pair.ours.equals(pair.stock) and pair.ours.status in BAD
        ],
    )


def _align_classes(results: Results, others: Results) -> Results:
    """
    Return *results* with class-level outcomes under the names that *others* uses.

    A skip or an error in setUpClass is reported for the class if the tests run in a
    single process, but for one of its tests if they run in several.
    """
    aligned = dict(results)
    for name in {*others} - {*results}:
        class_name = runner_label(name)
        if class_name == name:
            continue
        tests = (t for t in {*results} - {*others} if t.startswith(f"{class_name}."))
        matches = [t for t in tests if results[t].equals(others[name])]
        if len(matches) == 1:
            aligned[name] = aligned.pop(matches[0])
    return aligned


def runner_label(test: str) -> str:
    """Return the label with which Django's runner runs *test*, or its failed class."""
    for name in ("setUpClass (", "tearDownClass ("):
        if test.startswith(name):
            return test.removeprefix(name).removesuffix(")")
    return test

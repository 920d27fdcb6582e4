"""The printed report of a run."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from .checker import Verdict
from .experiment import Result
from .history import Outcome

MAX_VIOLATIONS = 25


def format_report(result: Result) -> Iterator[str]:
    """Yield the lines of the report."""
    verdict = result.verdict
    outcomes = Counter(operation.outcome for operation in verdict.operations)
    yield (
        f"{len(verdict.operations)} operations in {result.seconds:.0f} s: "
        + ", ".join(f"{outcomes[o]} {o.value}" for o in Outcome)
    )
    yield (
        f"inserts: at most {verdict.inserts_sent} sent, {verdict.inserts_executed} "
        "executed; longest wait for a connection or an error: "
        f"{verdict.longest_connect:.1f} s"
    )
    yield ""
    yield f"{'single fault':<28} {'times':>5} {'recovery, s':>12}  errors"
    single: dict[str, list[int]] = defaultdict(list)
    combined: list[int] = []
    for number, round_ in enumerate(result.rounds):
        names = round_.names
        (single[names[0]] if len(names) == 1 else combined).append(number)
    for name, numbers in sorted(single.items()):
        yield _format_row(name, numbers, verdict)
    yield _format_row("random combinations", combined, verdict)
    recovery = sorted(verdict.recovery)
    if recovery:
        yield (
            f"recovery of every thread: median {recovery[len(recovery) // 2]:.1f} s, "
            f"maximum {recovery[-1]:.1f} s"
        )
    yield ""
    yield f"violations: {len(verdict.violations)}"
    yield from (f"  {text[:700]}" for text in verdict.violations[:MAX_VIOLATIONS])


def _format_row(name: str, numbers: Sequence[int], verdict: Verdict) -> str:
    slowest = max((verdict.recovery[n] for n in numbers), default=0.0)
    errors = sum((verdict.errors[n] for n in numbers), Counter[str]())
    texts = ", ".join(f"{k} {n}" for k, n in errors.most_common(6)) or "none"
    return f"{name:<28} {len(numbers):>5} {slowest:>12.1f}  {texts}"

"""The figures of a run, in lines."""

from collections import Counter, defaultdict

from .history import Outcome

MOST_SHOWN = 25


def lines(verdict, happened, seconds):
    """Yield the report."""
    outcomes = Counter(unit.outcome for unit in verdict.units)
    yield (
        f"{len(verdict.units)} units in {seconds:.0f} s: "
        + ", ".join(f"{outcomes[o]} {o.value}" for o in Outcome)
    )
    yield (
        f"inserts: {verdict.inserts_sent} sent at most, {verdict.inserts_run} run; "
        f"longest wait for a connection or an error: {verdict.longest_connecting:.1f} s"
    )
    yield ""
    yield f"{'trouble, alone':<28} {'times':>5} {'recovery, s':>12}  errors"
    alone, mixed = defaultdict(list), []
    for number, one in enumerate(happened):
        names = [trouble.name for trouble, *_ in one.troubles]
        (alone[names[0]] if len(names) == 1 else mixed).append(number)
    for name, numbers in sorted(alone.items()):
        yield _row(name, numbers, verdict)
    yield _row("mixed at random", mixed, verdict)
    every = sorted(verdict.recovery)
    if every:
        yield (
            f"recovery of every thread: {every[len(every) // 2]:.1f} s in the median, "
            f"{every[-1]:.1f} s at most"
        )
    yield ""
    yield f"wrong: {len(verdict.wrong)}"
    yield from (f"  {text[:700]}" for text in verdict.wrong[:MOST_SHOWN])


def _row(name, numbers, verdict):
    worst = max((verdict.recovery[n] for n in numbers), default=0.0)
    errors = sum((verdict.errors[n] for n in numbers), Counter())
    told = ", ".join(f"{k} {n}" for k, n in errors.most_common(6)) or "none"
    return f"{name:<28} {len(numbers):>5} {worst:>12.1f}  {told}"

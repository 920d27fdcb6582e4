"""What is printed of two runs."""

from .comparison import ORDER, Comparison, Difference, counts
from .runs import Run


def table(names: tuple[str, str], runs: tuple[Run, Run]) -> str:
    """Return the numbers of both runs, side by side."""
    columns = [_numbers(run) for run in runs]
    lines = [f"{'':<22}{names[0]:>28}{names[1]:>12}"]
    lines += [
        f"{name:<22}{left:>28}{columns[1][name]:>12}"
        for name, left in columns[0].items()
    ]
    return "\n".join(lines)


def _numbers(run: Run) -> dict[str, int]:
    counted = counts(run.results)
    return {
        "tests": len(run.results),
        **{status: counted[status] for status in reversed(ORDER)},
        "seconds": round(run.seconds),
        "logins": run.logins,
        "tokens issued": run.tokens,
    }


def findings(comparison: Comparison, calmed: list[Difference]) -> str:
    """Return all that was not the same and good; *calmed* was the same when alone."""
    lines = [f"the same failure on both: {len(comparison.shared)}"]
    lines += [f"  {pair.test}: {pair.ours}" for pair in comparison.shared]
    lines.append(f"different among others, the same alone: {len(calmed)}")
    lines += _pairs(calmed)
    lines.append(f"different by design: {len(comparison.designed)}")
    for pair, reason in comparison.designed:
        lines += [*_pairs([pair]), f"    because {reason}"]
    lines.append(f"different: {len(comparison.differing)}")
    lines += _pairs(comparison.differing)
    return "\n".join(lines)


def _pairs(pairs: list[Difference]) -> list[str]:
    return [
        f"  {pair.test}\n    ours:  {pair.ours}\n    stock: {pair.stock}"
        for pair in pairs
    ]

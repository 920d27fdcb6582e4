"""The printed report of two runs."""

from .comparison import STATUSES, Comparison, Difference, count_statuses
from .runs import Run


def format_table(names: tuple[str, str], runs: tuple[Run, Run]) -> str:
    """Return the numbers of both runs side by side."""
    left, right = (_numbers(run) for run in runs)
    lines = [f"{'':<22}{names[0]:>28}{names[1]:>12}"]
    lines += [f"{name:<22}{left[name]:>28}{right[name]:>12}" for name in left]
    return "\n".join(lines)


def _numbers(run: Run) -> dict[str, int]:
    counts = count_statuses(run.results)
    return {
        "tests": len(run.results),
        **{status: counts[status] for status in reversed(STATUSES)},
        "seconds": round(run.seconds),
        "logins": run.logins,
        "tokens issued": run.tokens,
    }


def format_comparison(comparison: Comparison, flaky: list[Difference]) -> str:
    """Return all failures and differences; *flaky* tests were equal when run again."""
    lines = [f"failed on both backends: {len(comparison.shared_failures)}"]
    lines += [f"  {pair.test}: {pair.ours}" for pair in comparison.shared_failures]
    lines.append(f"different at first, equal when run alone: {len(flaky)}")
    lines += _format(flaky)
    lines.append(f"different by design: {len(comparison.expected)}")
    for pair, reason in comparison.expected:
        lines += [*_format([pair]), f"    reason: {reason}"]
    lines.append(f"different: {len(comparison.differences)}")
    lines += _format(comparison.differences)
    return "\n".join(lines)


def _format(differences: list[Difference]) -> list[str]:
    return [
        f"  {pair.test}\n    ours:  {pair.ours}\n    stock: {pair.stock}"
        for pair in differences
    ]

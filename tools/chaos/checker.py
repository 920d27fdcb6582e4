"""The checker of a run: consistency, waits, recovery, and each error."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import consistency
from .fault_injector import Round
from .faults import Fault
from .hang_detector import COMMITTING, CONNECTING, MARGIN, WORKING
from .history import Incident, Operation, Outcome
from .writer import SECRET

# Errors that only say that an earlier statement failed.
CONSEQUENTIAL_ERRORS = ("TransactionManagementError", "InFailedSqlTransaction")


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The violations of a run, and its numbers."""

    violations: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    inserts_executed: int = 0
    inserts_sent: int = 0
    longest_connect: float = 0.0
    # For each round: seconds until every thread had written again, and the errors.
    recovery: list[float] = field(default_factory=list)
    errors: list[Counter[str]] = field(default_factory=list)


def check_run(
    operations: list[Operation],
    incidents: Sequence[Incident],
    rounds: Sequence[Round],
    budget: float,
    counts: tuple[consistency.RowCounts, int],
) -> Verdict:
    """Return the verdict; *counts* are the rows in the table and inserts executed."""
    rows, inserts_executed = counts
    verdict = Verdict(operations=operations, inserts_executed=inserts_executed)
    verdict.violations += consistency.find_violations(operations, rows)
    verdict.inserts_sent = sum(_count_sent(operation) for operation in operations)
    if inserts_executed > verdict.inserts_sent:
        verdict.violations.append(
            f"replayed: {inserts_executed} inserts were executed, but only "
            f"{verdict.inserts_sent} were sent"
        )
    verdict.violations += [f"{kind}: {values}" for kind, values in incidents]
    _check_waits(operations, budget, verdict)
    _check_recovery(operations, rounds, verdict)
    for operation in operations:
        if operation.error is not None:
            _check_error(operation, rounds, verdict)
    return verdict


def find_secrets(folder: Path) -> list[str]:
    """Return a text for each file of *folder* that contains a token or secret."""
    return [
        f"a secret in {path.name}: {match.group()[:5]}..."
        for path in sorted(folder.iterdir())
        if (match := SECRET.search(path.read_text(errors="replace")))
    ]


def _check_waits(
    operations: Sequence[Operation], budget: float, verdict: Verdict
) -> None:
    waits = {o.key: o.connect_seconds - o.machine_delay for o in operations}
    verdict.longest_connect = max(waits.values(), default=0.0)
    for operation in operations:
        if waits[operation.key] > budget + MARGIN:
            verdict.violations.append(
                f"waited too long: {operation.connect_seconds:.1f} s, {operation}"
            )


def _check_recovery(
    operations: Sequence[Operation], rounds: Sequence[Round], verdict: Verdict
) -> None:
    for round_ in rounds:
        verdict.recovery.append(_recovery_seconds(round_, operations))
        verdict.errors.append(Counter())
        if not round_.recovered:
            verdict.violations.append(f"no recovery from {round_.names}")


def _count_sent(operation: Operation) -> int:
    """Return how many inserts of *operation* may have reached the server."""
    if operation.outcome == Outcome.FAILED and operation.phase == CONNECTING:
        return 0
    return operation.parts


def _recovery_seconds(round_: Round, operations: Sequence[Operation]) -> float:
    """Return the seconds until the last thread wrote its first row after the round."""
    first: dict[int, float] = {}
    for operation in operations:
        if operation.outcome == Outcome.ACKNOWLEDGED and operation.writer >= 0:
            seconds = operation.ended - round_.ended
            if seconds > 0:
                known = first.get(operation.writer, seconds)
                first[operation.writer] = min(known, seconds)
    return max(first.values(), default=0.0)


def _check_error(
    operation: Operation, rounds: Sequence[Round], verdict: Verdict
) -> None:
    error = operation.error or {}
    if not error["is_django"] or error["shows_secret"]:
        verdict.violations.append(f"not a Django error, or shows a secret: {error}")
        return
    numbers = _rounds_during(operation, rounds)
    if not numbers:
        verdict.violations.append(f"an error without a fault: {operation}")
        return
    name = error["id"] or f"{error['chain'][0].rpartition('.')[2]} ({operation.phase})"
    # The operation may have started at the end of one round and failed in the next.
    active = {number: _active_faults(operation, rounds[number]) for number in numbers}
    explaining = [n for n in numbers if _is_explained(operation, active[n])]
    verdict.errors[(explaining or numbers)[0]][name] += 1
    if not explaining:
        names = [fault.name for number in numbers for fault in active[number]]
        verdict.violations.append(
            f"unexpected error during {names}: {name} after "
            f"{operation.connect_seconds:.1f} s of connecting: {error['chain']} "
            f"{error['text']}"
        )


def _rounds_during(operation: Operation, rounds: Sequence[Round]) -> list[int]:
    # Until all threads have recovered, an error belongs to the round.
    return [
        number
        for number, round_ in enumerate(rounds)
        if operation.started < (round_.recovered or float("inf"))
        and operation.ended > round_.started
    ]


def _active_faults(operation: Operation, round_: Round) -> list[Fault]:
    return [i.fault for i in round_.faults if operation.ended > i.started]


def _is_explained(operation: Operation, faults: Sequence[Fault]) -> bool:
    """Return whether one of *faults* may cause the error of *operation*."""
    error = operation.error or {}
    if any(name in error["chain"][0] for name in CONSEQUENTIAL_ERRORS):
        return False
    if error["id"]:
        return any(error["id"] in fault.failure_ids for fault in faults)
    if operation.phase not in (WORKING, COMMITTING):
        return False
    patterns = [fault.error_pattern for fault in faults if fault.error_pattern]
    return any(re.search(p, error["text"], re.IGNORECASE) for p in patterns)

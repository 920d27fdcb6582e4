"""Judges a run: the books, each error, each hang, each trouble's end."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from . import consistency
from .hang_detector import COMMITTING, CONNECTING, MARGIN, WORKING
from .history import Outcome, Unit
from .writer import SECRET

# Errors that only tell of an earlier one.
ECHOES = ("TransactionManagementError", "InFailedSqlTransaction")


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What is wrong, and the figures."""

    wrong: list[str] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    inserts_run: int = 0
    inserts_sent: int = 0
    longest_connecting: float = 0.0
    # By round: seconds until every thread had written again, and what was raised.
    recovery: list[float] = field(default_factory=list)
    errors: list[Counter[str]] = field(default_factory=list)


def judge(units, others, happened, budget, counted):
    """Return the verdict on a run; *counted* is the table's rows and inserts."""
    rows, inserts_run = counted
    verdict = Verdict(units=units, inserts_run=inserts_run)
    verdict.wrong += consistency.balance(units, rows)
    verdict.inserts_sent = sum(_sent(unit) for unit in units)
    if inserts_run > verdict.inserts_sent:
        verdict.wrong.append(
            f"replayed: {inserts_run} inserts were run, {verdict.inserts_sent} sent"
        )
    verdict.wrong += [f"{kind}: {facts}" for kind, facts in others]
    _judge_waits(units, budget, verdict)
    _judge_recovery(units, happened, verdict)
    for unit in units:
        if unit.error is not None:
            _judge_error(unit, happened, verdict)
    return verdict


def _judge_waits(units, budget, verdict):
    waits = {unit.key: unit.connecting - unit.late for unit in units}
    verdict.longest_connecting = max(waits.values(), default=0.0)
    for unit in units:
        if waits[unit.key] > budget + MARGIN:
            verdict.wrong.append(f"too long: {unit.connecting:.1f} s, {unit}")


def _judge_recovery(units, happened, verdict):
    for one in happened:
        verdict.recovery.append(_recovery(one, units))
        verdict.errors.append(Counter())
        if not one.well:
            names = [t[0].name for t in one.troubles]
            verdict.wrong.append(f"no recovery from {names}")


def secrets_in(folder):
    """Return in which files of *folder* something like a token stands."""
    return [
        f"a secret in {path.name}: {found.group()[:5]}..."
        for path in sorted(folder.iterdir())
        if (found := SECRET.search(path.read_text(errors="replace")))
    ]


def _sent(unit):
    """Return how many inserts of *unit* may have reached the server."""
    if unit.outcome == Outcome.REFUSED and unit.phase == CONNECTING:
        return 0
    return unit.parts


def _recovery(happened, units):
    first = defaultdict(lambda: None)
    for unit in units:
        if unit.outcome == Outcome.ACKNOWLEDGED and unit.writer >= 0:
            late = unit.ended - happened.ended
            if late > 0 and (first[unit.writer] is None or late < first[unit.writer]):
                first[unit.writer] = late
    return max((late for late in first.values() if late is not None), default=0.0)


def _judge_error(unit, happened, verdict):
    error = unit.error
    if not error["is_django"] or error["shows_secret"]:
        verdict.wrong.append(f"not an error for users: {error}")
        return
    rounds = _rounds_of(unit, happened)
    if not rounds:
        verdict.wrong.append(f"an error without a trouble: {unit}")
        return
    name = error["id"] or f"{error['chain'][0].rpartition('.')[2]} ({unit.phase})"
    # It may have begun in the last moment of one round, and met the next.
    troubles = {number: _in_force(unit, happened[number]) for number in rounds}
    named = [number for number in rounds if _is_named(unit, troubles[number])]
    verdict.errors[(named or rounds)[0]][name] += 1
    if not named:
        names = [trouble.name for number in rounds for trouble in troubles[number]]
        verdict.wrong.append(
            f"misnamed in {names}: {name} after {unit.connecting:.1f} s connecting: "
            f"{error['chain']} {error['text']}"
        )


def _rounds_of(unit, happened):
    # Until all are well, what is raised is the trouble's own end.
    return [
        number
        for number, one in enumerate(happened)
        if unit.began < (one.well or float("inf")) and unit.ended > one.began
    ]


def _in_force(unit, one):
    return [t for t, began, _ in one.troubles if unit.ended > began]


def _is_named(unit, troubles):
    error = unit.error
    if any(echo in error["chain"][0] for echo in ECHOES):
        return False
    if error["id"]:
        return any(error["id"] in trouble.ids for trouble in troubles)
    if unit.phase not in (WORKING, COMMITTING):
        return False
    words = [trouble.words for trouble in troubles if trouble.words]
    return any(re.search(w, error["text"], re.IGNORECASE) for w in words)

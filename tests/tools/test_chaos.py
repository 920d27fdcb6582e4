"""The checks of the chaos run, and two short runs."""

import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tools.chaos import checker, consistency, report
from tools.chaos.experiment import Options, run_experiment, running_writers
from tools.chaos.fault_injector import InjectedFault, Round
from tools.chaos.faults import CONNECTION_LOST, FAULTS, Fault
from tools.chaos.hang_detector import (
    CONNECTING,
    MARGIN,
    WORKING,
    HangDetector,
    ThreadState,
)
from tools.chaos.history import HistoryWriter, Operation, Outcome, read_histories
from tools.chaos.schedule import generate_rounds

ACKNOWLEDGED = Operation(
    key="k",
    writer=0,
    alias="default",
    kind="atomic",
    parts=2,
    started=1.0,
    ended=2.0,
    outcome=Outcome.ACKNOWLEDGED,
)
BOTH = {("k", 0): 1, ("k", 1): 1}


@pytest.mark.parametrize(
    ("outcome", "rows", "violation"),
    [
        (Outcome.ACKNOWLEDGED, BOTH, None),
        (Outcome.ACKNOWLEDGED, {}, "lost"),
        (Outcome.ACKNOWLEDGED, {("k", 0): 1}, "partial"),
        (Outcome.ACKNOWLEDGED, {**BOTH, ("k", 1): 2}, "duplicate"),
        (Outcome.UNKNOWN, BOTH, None),
        (Outcome.UNKNOWN, {}, None),
        (Outcome.UNKNOWN, {("k", 0): 2, ("k", 1): 2}, "duplicate"),
        (Outcome.FAILED, {}, None),
        (Outcome.FAILED, BOTH, "failed, but committed"),
        (Outcome.ACKNOWLEDGED, {**BOTH, ("other", 0): 1}, "unknown key"),
    ],
)
def test_rows_that_contradict_an_outcome_are_violations(
    outcome: Outcome, rows: consistency.RowCounts, violation: str | None
):
    violations = consistency.find_violations(
        [replace(ACKNOWLEDGED, outcome=outcome)], rows
    )

    assert [text.partition(":")[0] for text in violations] == (
        [violation] if violation else []
    )


def test_deleted_row_and_duplicated_row_in_the_table_are_found(tmp_path: Path):
    options = Options(seconds=0, seed=1, processes=1, threads=2)
    with running_writers(options, tmp_path) as (local, writers):
        writers.await_ready()
        killed = writers.stop()
        operations, _ = read_histories(tmp_path)
        original, inserts = consistency.count_rows(local)
        lost, duplicated = sorted(key for key, part in original if part == 0)[:2]
        with consistency.connect_as_owner(local) as connection:
            role = local.facts["service_principal"]
            connection.execute(f'SET ROLE "{role}"')
            connection.execute("DELETE FROM chaos_entry WHERE key = %s", [lost])
            connection.execute(
                "INSERT INTO chaos_entry (key, part) SELECT key, part "
                "FROM chaos_entry WHERE key = %s",
                [duplicated],
            )
        manipulated, _ = consistency.count_rows(local)

    assert killed == 0
    assert consistency.find_violations(operations, original) == []
    assert inserts == sum(operation.parts for operation in operations)
    violations = consistency.find_violations(operations, manipulated)
    assert sorted(text.split()[0] for text in violations) == ["duplicate:", "lost:"]


@pytest.mark.parametrize("pool", [False, True], ids=["plain", "pool"])
def test_short_run_has_no_violations(pool: bool):
    options = Options(
        seconds=3,
        seed=3,
        pool=pool,
        processes=2,
        threads=2,
        only="reset-connections",
        pause=0.05,
    )

    result = run_experiment(options, lambda _: None)

    assert result.verdict.violations == []
    outcomes = [operation.outcome for operation in result.verdict.operations]
    assert Outcome.ACKNOWLEDGED in outcomes
    assert "violations: 0" in list(report.format_report(result))


def round_with(fault: Fault, started: float, ended: float) -> Round:
    """Return a round with one fault, half a second before all threads recovered."""
    return Round(
        faults=[InjectedFault(fault=fault, started=started, ended=ended)],
        started=started,
        ended=ended,
        recovered=ended + 0.5,
    )


def error_with(**values: Any) -> dict[str, Any]:
    """Return the record of an error."""
    return {
        "chain": ["x.LakebaseError"],
        "id": "",
        "text": "",
        "traceback": "",
        "is_django": True,
        "shows_secret": False,
        **values,
    }


DOWN = Fault(name="down", failure_ids=frozenset({"api-unreachable"}))
RESETS = Fault(name="resets", error_pattern=CONNECTION_LOST)


@pytest.mark.parametrize(
    ("error", "phase", "fault", "violation"),
    [
        ({"id": "api-unreachable"}, CONNECTING, DOWN, ""),
        ({"id": "waking"}, CONNECTING, DOWN, "unexpected error"),
        ({"id": "waking"}, CONNECTING, RESETS, "unexpected error"),
        ({"text": "server closed the connection"}, WORKING, RESETS, ""),
        (
            {"text": "server closed the connection"},
            CONNECTING,
            RESETS,
            "unexpected error",
        ),
        ({"text": "server closed the connection"}, WORKING, DOWN, "unexpected error"),
        (
            {"text": "terminating connection", "chain": ["x.InFailedSqlTransaction"]},
            WORKING,
            RESETS,
            "unexpected error",
        ),
        ({"is_django": False}, CONNECTING, DOWN, "not a Django error"),
        ({"shows_secret": True}, CONNECTING, DOWN, "not a Django error"),
    ],
)
def test_only_errors_that_an_active_fault_explains_are_allowed(
    error: Mapping[str, Any], phase: str, fault: Fault, violation: str
):
    operation = replace(
        ACKNOWLEDGED, outcome=Outcome.FAILED, phase=phase, error=error_with(**error)
    )
    rounds = [round_with(fault, 0.5, 3.0)]

    verdict = checker.check_run([operation], [], rounds, 3.0, ({}, 0))

    found = [text.partition(" during ")[0] for text in verdict.violations]
    assert [text.partition(",")[0] for text in found] == (
        [violation] if violation else []
    )


def test_error_after_recovery_is_a_violation():
    operation = replace(ACKNOWLEDGED, started=9.0, error=error_with())
    rounds = [round_with(DOWN, 0.5, 3.0)]

    verdict = checker.check_run([operation], [], rounds, 3.0, (BOTH, 2))

    assert [text.partition(":")[0] for text in verdict.violations] == [
        "an error without a fault"
    ]


def test_error_of_an_operation_in_two_rounds_is_counted_in_the_one_that_explains_it():
    operation = replace(
        ACKNOWLEDGED,
        started=3.4,
        ended=4.0,
        outcome=Outcome.FAILED,
        error=error_with(id="api-unreachable"),
    )
    rounds = [round_with(RESETS, 0.5, 3.0), round_with(DOWN, 3.5, 5.0)]

    verdict = checker.check_run([operation], [], rounds, 3.0, ({}, 0))

    assert verdict.violations == []
    assert [list(errors) for errors in verdict.errors] == [[], ["api-unreachable"]]


def test_more_inserts_executed_than_sent_are_a_replay():
    """The table's sequence also counts inserts that were rolled back."""
    once = checker.check_run([ACKNOWLEDGED], [], [], 3.0, (BOTH, 2))
    twice = checker.check_run([ACKNOWLEDGED], [], [], 3.0, (BOTH, 3))

    assert once.violations == []
    [text] = twice.violations
    assert text.startswith("replayed: 3 inserts were executed, but only 2 were sent")


def test_hang_is_reported_once_with_its_stack_and_without_the_machine_delay():
    reports: list[dict[str, Any]] = []
    state = ThreadState("0.0")
    state.thread = threading.current_thread()
    detector = HangDetector([state], 3.0, lambda **values: reports.append(values))
    state.enter(CONNECTING, "k")
    state.since = time.monotonic() - 3.0 - MARGIN - 1
    state.machine_delay = detector.machine_delay - 2
    detector.check(state)
    assert reports == []

    state.machine_delay = detector.machine_delay
    detector.check(state)
    detector.check(state)

    assert [values["key"] for values in reports] == ["k"]
    assert "test_hang_is_reported_once" in str(reports[0]["stacks"])


def test_token_in_a_file_of_the_run_is_found(tmp_path: Path):
    history = HistoryWriter(tmp_path / "0.history")
    history.write("error", text="eyJhbGciOiJSUzI1NiJ9.eyJ")
    (tmp_path / "0.log").write_text("no secret")

    assert len(checker.find_secrets(tmp_path)) == 1


def test_schedule_depends_only_on_the_seed_and_contains_every_fault():
    def first(number: int, seed: int) -> list[Any]:
        return list(itertools.islice(generate_rounds(seed, 3.0, pool=True), number))

    single = {rounds[0].fault.name for rounds in first(2 * len(FAULTS), 7)[::2]}

    assert first(20, 7) == first(20, 7)
    assert first(20, 7) != first(20, 8)
    assert single == {fault.name for fault in FAULTS}

"""That chaos finds what it looks for, and a short run of it."""

import threading
import time
from dataclasses import replace

import pytest

from tools.chaos import checker, consistency, report
from tools.chaos.experiment import Plan, chaos, writing
from tools.chaos.fault_injector import Happened
from tools.chaos.faults import CUT, TROUBLES, Trouble
from tools.chaos.hang_detector import CONNECTING, MARGIN, WORKING, Slot, Watchdog
from tools.chaos.history import Journal, Outcome, Unit, read
from tools.chaos.schedule import rounds

DONE = Unit(
    key="k",
    writer=0,
    alias="default",
    kind="atomic",
    parts=2,
    began=1.0,
    ended=2.0,
    outcome=Outcome.ACKNOWLEDGED,
)
BOTH = {("k", 0): 1, ("k", 1): 1}


@pytest.mark.parametrize(
    ("outcome", "rows", "said"),
    [
        (Outcome.ACKNOWLEDGED, BOTH, None),
        (Outcome.ACKNOWLEDGED, {}, "lost"),
        (Outcome.ACKNOWLEDGED, {("k", 0): 1}, "torn"),
        (Outcome.ACKNOWLEDGED, {**BOTH, ("k", 1): 2}, "doubled"),
        (Outcome.UNKNOWN, BOTH, None),
        (Outcome.UNKNOWN, {}, None),
        (Outcome.UNKNOWN, {("k", 0): 2, ("k", 1): 2}, "doubled"),
        (Outcome.REFUSED, {}, None),
        (Outcome.REFUSED, BOTH, "refused, and there"),
        (Outcome.ACKNOWLEDGED, {**BOTH, ("other", 0): 1}, "from nowhere"),
    ],
)
def test_books_that_do_not_balance(outcome, rows, said):
    """What a writer was told is once in the table, not at all, or either."""
    wrong = consistency.balance([replace(DONE, outcome=outcome)], rows)

    assert [text.partition(":")[0] for text in wrong] == ([said] if said else [])


def test_a_row_that_was_lost_and_one_that_was_doubled_are_found(tmp_path):
    """Planted in the table behind the writers' backs."""
    plan = Plan(seconds=0, seed=1, processes=1, threads=2)
    with writing(plan, tmp_path) as (local, writers):
        writers.await_ready()
        late = writers.stop()
        units, _ = read(tmp_path)
        honest, inserts = consistency.count(local)
        lost, doubled = sorted(key for key, part in honest if part == 0)[:2]
        with consistency.dial(local) as session:
            role = local.facts["service_principal"]
            session.execute(f'SET ROLE "{role}"')
            session.execute("DELETE FROM chaos_entry WHERE key = %s", [lost])
            session.execute(
                "INSERT INTO chaos_entry (key, part) SELECT key, part "
                "FROM chaos_entry WHERE key = %s",
                [doubled],
            )
        planted, _ = consistency.count(local)

    assert late == 0
    assert consistency.balance(units, honest) == []
    assert inserts == sum(unit.parts for unit in units)
    wrong = consistency.balance(units, planted)
    assert sorted(text.split()[0] for text in wrong) == ["doubled:", "lost:"]


@pytest.mark.parametrize("pool", [False, True], ids=["plain", "pool"])
def test_a_short_run(pool):
    """Rows are written through a login refused, a cut and a workspace that is down."""
    plan = Plan(
        seconds=3, seed=3, pool=pool, processes=2, threads=2, only="cut", pause=0.05
    )

    verdict, happened, seconds = chaos(plan, lambda _: None)

    assert verdict.wrong == []
    assert any(unit.outcome == Outcome.ACKNOWLEDGED for unit in verdict.units)
    assert "wrong: 0" in list(report.lines(verdict, happened, seconds))


def judged(error, *, phase=CONNECTING, trouble):
    """Return what is wrong with a unit that ended in *error* while *trouble* was on."""
    known = {"chain": ["x.LakebaseError"], "id": "", "text": "", "traceback": ""}
    known |= {"is_django": True, "shows_secret": False}
    unit = replace(DONE, outcome=Outcome.REFUSED, phase=phase, error={**known, **error})
    happened = Happened(troubles=[[trouble, 0.5, 3.0]], began=0.5, ended=3.0, well=3.5)
    return checker.judge([unit], [], [happened], 3.0, ({}, 0)).wrong


DOWN = Trouble(name="down", ids=frozenset({"api-unreachable"}))
CUTS = Trouble(name="cuts", words=CUT)


@pytest.mark.parametrize(
    ("error", "phase", "trouble", "said"),
    [
        ({"id": "api-unreachable"}, CONNECTING, DOWN, ""),
        ({"id": "waking"}, CONNECTING, DOWN, "misnamed"),
        ({"id": "waking"}, CONNECTING, CUTS, "misnamed"),
        ({"text": "server closed the connection"}, WORKING, CUTS, ""),
        ({"text": "server closed the connection"}, CONNECTING, CUTS, "misnamed"),
        ({"text": "server closed the connection"}, WORKING, DOWN, "misnamed"),
        (
            {"text": "terminating connection", "chain": ["x.InFailedSqlTransaction"]},
            WORKING,
            CUTS,
            "misnamed",
        ),
        ({"is_django": False}, CONNECTING, DOWN, "not an error for users"),
        ({"shows_secret": True}, CONNECTING, DOWN, "not an error for users"),
    ],
)
def test_an_error_is_named_after_its_trouble(error, phase, trouble, said):
    """Another name, an echo, or an error that is none of Django's is wrong."""
    wrong = judged(error, phase=phase, trouble=trouble)

    assert [text.partition(" in ")[0].partition(":")[0] for text in wrong] == (
        [said] if said else []
    )


def test_an_error_after_all_are_well_is_wrong():
    """No trouble is left to blame."""
    unit = replace(DONE, began=9.0, error={"is_django": True, "shows_secret": False})
    happened = Happened(troubles=[[DOWN, 0.5, 3.0]], began=0.5, ended=3.0, well=3.5)

    wrong = checker.judge([unit], [], [happened], 3.0, (BOTH, 2)).wrong

    assert [text.partition(":")[0] for text in wrong] == ["an error without a trouble"]


def test_an_error_may_be_of_the_round_that_follows():
    """Who began as one round ended meets the troubles of the next."""
    error = {"id": "api-unreachable", "chain": ["x.LakebaseError"], "text": ""}
    error |= {"is_django": True, "shows_secret": False}
    unit = replace(DONE, began=3.4, ended=4.0, outcome=Outcome.REFUSED, error=error)
    first = Happened(troubles=[[CUTS, 0.5, 3.0]], began=0.5, ended=3.0, well=3.5)
    second = Happened(troubles=[[DOWN, 3.5, 5.0]], began=3.5, ended=5.0, well=5.5)

    verdict = checker.judge([unit], [], [first, second], 3.0, ({}, 0))

    assert verdict.wrong == []
    assert [list(counted) for counted in verdict.errors] == [[], ["api-unreachable"]]


def test_more_inserts_than_were_sent_are_a_replay():
    """The sequence remembers also those that were rolled back."""
    assert checker.judge([DONE], [], [], 3.0, (BOTH, 2)).wrong == []

    [text] = checker.judge([DONE], [], [], 3.0, (BOTH, 3)).wrong

    assert text.startswith("replayed: 3 inserts were run, 2 sent")


def test_who_waits_too_long_is_shown_with_his_stack():
    """Once for each unit, and not for the machine's own delay."""
    told = []
    slot = Slot("0.0")
    slot.thread = threading.current_thread()
    dog = Watchdog([slot], 3.0, lambda **facts: told.append(facts))
    slot.enter(CONNECTING, "k")
    slot.since = time.monotonic() - 3.0 - MARGIN - 1
    slot.late = dog.late - 2
    dog.look(slot)
    assert told == []

    slot.late = dog.late
    dog.look(slot)
    dog.look(slot)

    assert [facts["key"] for facts in told] == ["k"]
    assert "test_who_waits_too_long" in str(told[0]["stacks"])


def test_a_token_in_any_file_of_a_run_is_found(tmp_path):
    """Journals, logs and what went to stderr."""
    Journal(tmp_path / "0.journal").write("error", text="eyJhbGciOiJSUzI1NiJ9.eyJ")
    (tmp_path / "0.log").write_text("all is well")

    assert len(checker.secrets_in(tmp_path)) == 1


def test_a_seed_gives_the_same_rounds_and_in_time_every_trouble():
    """What went wrong once can be had again."""

    def first(number, seed):
        made = rounds(seed, 3.0, pool=True)
        return [next(made) for _ in range(number)]

    alone = {plays[0].trouble.name for plays in first(2 * len(TROUBLES), 7)[::2]}

    assert first(20, 7) == first(20, 7)
    assert first(20, 7) != first(20, 8)
    assert alone == {trouble.name for trouble in TROUBLES}

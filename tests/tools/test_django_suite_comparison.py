"""The comparison of two runs of Django's test suite, on handwritten records."""

import json

import pytest

from tools.django_suite.comparison import (
    Difference,
    Outcome,
    Results,
    UnfinishedError,
    compare,
    count_statuses,
    read_results,
    runner_label,
)

OK, ERROR = Outcome("ok"), Outcome("error", "ValueError: no")
END = '{"finished": true}'


def line(test: str, status: str, detail: str = "") -> str:
    """Return a line in the recorder's format."""
    return json.dumps({"test": test, "status": status, "detail": detail})


def test_worst_outcome_of_subtests_and_cleanup_is_the_outcome_of_the_test():
    lines = [line("a", "skipped", "why"), line("a", "failure", "no"), line("a", "ok")]

    results = read_results([*lines, line("b", "ok"), END])

    assert results == {"a": Outcome("failure", "no"), "b": OK}
    assert count_statuses(results) == {"failure": 1, "ok": 1}


def test_record_without_end_is_rejected():
    """A run that crashed half-way must not pass for a run with few tests."""
    with pytest.raises(UnfinishedError):
        read_results([line("a", "ok")])


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        pytest.param({"a": ERROR}, {"a": OK}, id="additional failure"),
        pytest.param({"a": OK}, {"a": ERROR}, id="failure only on stock"),
        pytest.param({}, {"a": OK}, id="missing on ours"),
        pytest.param({"a": OK}, {}, id="missing on stock"),
        pytest.param({"a": Outcome("skipped", "x")}, {"a": OK}, id="additional skip"),
        pytest.param(
            {"a": Outcome("skipped", "x")},
            {"a": Outcome("skipped", "y")},
            id="different skip reason",
        ),
        pytest.param({"a": ERROR}, {"a": Outcome("failure")}, id="different failure"),
    ],
)
def test_unequal_outcomes_are_a_difference(ours: Results, stock: Results):
    found = compare(ours, stock, {})

    absent = Outcome("not run")
    assert found.differences == [
        Difference("a", ours.get("a", absent), stock.get("a", absent))
    ]


def test_expected_difference_is_reported_separately_with_its_reason():
    found = compare({"a": ERROR, "b": ERROR}, {"a": OK, "b": OK}, {"a": "reason"})

    assert [difference.test for difference in found.differences] == ["b"]
    assert found.expected == [(Difference("a", ERROR, OK), "reason")]


def test_expected_difference_that_does_not_occur_is_not_reported():
    found = compare({"a": OK}, {"a": OK}, {"a": "reason"})

    assert found.expected == []


def test_failure_on_both_backends_is_shared_even_if_the_texts_differ():
    """Its cause is the machine, not the engine."""
    other = Outcome("error", "ValueError: at 0x1")

    found = compare({"a": ERROR, "b": OK}, {"a": other, "b": OK}, {})

    assert found.differences == []
    assert found.shared_failures == [Difference("a", ERROR, other)]


def test_skipped_class_is_equal_in_one_process_and_in_several():
    """A single process names the class, several processes name one of its tests."""
    skip = Outcome("skipped", "why")
    single = {"setUpClass (m.C)": skip, "m.D.test": OK}
    parallel = {"m.C.test_two": skip, "m.D.test": OK}

    assert compare(parallel, single, {}).differences == []
    assert compare(single, parallel, {}).differences == []


def test_skipped_class_does_not_hide_a_failed_test():
    single = {"setUpClass (m.C)": Outcome("skipped", "why")}

    found = compare({"m.C.test_two": ERROR}, single, {})

    assert len(found.differences) == 2


def runner_label_of_a_failed_setup_is_its_class():
    """Django's runner accepts no label for the setUpClass of a class."""
    assert runner_label("setUpClass (queries.tests.Tests)") == "queries.tests.Tests"
    assert (
        runner_label("queries.tests.Tests.test_one") == "queries.tests.Tests.test_one"
    )

"""The comparison of two runs of Django's tests, on records written by hand."""

import json

import pytest

from tools.django_suite.comparison import (
    Difference,
    Outcome,
    UnfinishedError,
    compare,
    counts,
    label,
    read,
)

OK, ERROR = Outcome("ok"), Outcome("error", "ValueError: no")
END = '{"finished": true}'


def line(test, status, detail=""):
    """Return a line as the recorder writes it."""
    return json.dumps({"test": test, "status": status, "detail": detail})


def test_the_worst_part_decides_over_a_test():
    """A test whose parts failed, or that failed again in its cleanup, has failed."""
    lines = [line("a", "skipped", "why"), line("a", "failure", "no"), line("a", "ok")]

    results = read([*lines, line("b", "ok"), END])

    assert results == {"a": Outcome("failure", "no"), "b": OK}
    assert counts(results) == {"failure": 1, "ok": 1}


def test_a_record_without_an_end_is_no_result():
    """A run that died half-way must not pass for one with few tests."""
    with pytest.raises(UnfinishedError):
        read([line("a", "ok")])


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        pytest.param({"a": ERROR}, {"a": OK}, id="additional failure"),
        pytest.param({"a": OK}, {"a": ERROR}, id="failure on stock alone"),
        pytest.param({}, {"a": OK}, id="missing here"),
        pytest.param({"a": OK}, {}, id="only here"),
        pytest.param({"a": Outcome("skipped", "x")}, {"a": OK}, id="additional skip"),
        pytest.param(
            {"a": Outcome("skipped", "x")},
            {"a": Outcome("skipped", "y")},
            id="another reason",
        ),
        pytest.param({"a": ERROR}, {"a": Outcome("failure")}, id="fails otherwise"),
    ],
)
def test_what_is_not_the_same_is_a_difference(ours, stock):
    """Tests, skips with their reasons, and failures must be the same on both."""
    found = compare(ours, stock, {})

    absent = Outcome("not run")
    assert found.differing == [
        Difference("a", ours.get("a", absent), stock.get("a", absent))
    ]


def test_a_difference_by_design_is_told_with_its_reason():
    """It is no difference to mend, and it is not hidden."""
    found = compare({"a": ERROR, "b": ERROR}, {"a": OK, "b": OK}, {"a": "so"})

    assert [pair.test for pair in found.differing] == ["b"]
    assert found.designed == [(Difference("a", ERROR, OK), "so")]


def test_what_is_by_design_and_yet_the_same_is_not_told():
    """The table of reasons speaks of what was seen in this run."""
    found = compare({"a": OK}, {"a": OK}, {"a": "so"})

    assert found.designed == []


def test_the_same_failure_on_both_is_no_difference():
    """It says something of the machine, also where the texts are not the same."""
    other = Outcome("error", "ValueError: at 0x1")

    found = compare({"a": ERROR, "b": OK}, {"a": other, "b": OK}, {})

    assert found.differing == []
    assert found.shared == [Difference("a", ERROR, other)]


def test_a_skipped_class_is_the_same_in_one_process_and_in_several():
    """Only one of them names the class; the other names one of its tests."""
    skip = Outcome("skipped", "why")
    alone = {"setUpClass (m.C)": skip, "m.D.test": OK}
    among = {"m.C.test_two": skip, "m.D.test": OK}

    assert compare(among, alone, {}).differing == []
    assert compare(alone, among, {}).differing == []


def test_a_skipped_class_does_not_hide_a_failed_test():
    """Only the same outcome may stand for the class."""
    alone = {"setUpClass (m.C)": Outcome("skipped", "why")}

    found = compare({"m.C.test_two": ERROR}, alone, {})

    assert len(found.differing) == 2


def test_a_failed_class_is_run_again_by_its_name():
    """Django's runner knows no label for the setting up of a class."""
    assert label("setUpClass (queries.tests.Tests)") == "queries.tests.Tests"
    assert label("queries.tests.Tests.test_one") == "queries.tests.Tests.test_one"

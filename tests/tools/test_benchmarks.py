"""What make bench measures and writes, without its ten minutes."""

import subprocess
import sys

from benchmarks import connect, report
from benchmarks.measurement import (
    UNCOUNTED,
    Figure,
    Ratio,
    Skipped,
    Step,
    compared,
    ratio,
    turns,
)

RESULTS = {
    "connect": [
        Figure(
            what="connect, 10 ms round trip",
            figure="0.83 (0.8 to 0.85): 60.0 ms and 72.0 ms",
            goal="<= 0.9",
            is_met=True,
            ratio=Ratio(0.83, 0.8, 0.85),
            most=0.9,
        )
    ],
    "many": [Figure(what="many", figure="6 credentials", goal="3", is_met=False)],
    "others": [Skipped("port 5432 is taken")],
    "processes": [
        Step("django_lakebase", "SDK's import", 900.0),
        Step("django_lakebase", "connect", 9.0),
        Step("stock", "connect", 10.0),
    ],
}


def test_the_ways_take_turns_and_each_begins_as_often():
    """Noise hits all of them, and who begins has no advantage."""
    told = []
    ways = [lambda: told.append("a"), lambda: told.append("b")]

    taken = turns(ways, 7, after=lambda: told.append("."))

    assert [len(times) for times in taken] == [7, 7]
    assert "".join(told) == "a.b.b.a." * ((7 + UNCOUNTED) // 2)


def test_a_figure_is_the_ratio_of_medians_with_its_spread():
    """One slow round moves neither much."""
    assert ratio([1.0, 1.0, 9.0, 1.0], [2.0, 2.0, 2.0, 2.0]).middle == 0.5
    assert compared("x", ([1.0, 1.0], [2.0, 2.0]), 0.9).is_met is True
    assert compared("x", ([2.0, 2.0], [2.0, 2.0]), 0.9).is_met is False
    assert compared("x", ([2.0, 2.0], [2.0, 2.0])).is_met is None


def test_the_page_holds_what_was_measured_and_what_was_missed():
    """Values in, Markdown out."""
    text = report.markdown(RESULTS, "2 cores of a machine")

    assert "which writes this page: 2 cores of a machine." in text
    assert "| 0.83 (0.8 to 0.85): 60.0 ms and 72.0 ms | <= 0.9: met |" in text
    assert "| many | 6 credentials | 3: **missed** |" in text
    assert "Not measured in this run: port 5432 is taken." in text
    assert "| SDK's import | 900 ms |  |\n| connect | 9 ms | 10 ms |" in text


def test_the_pictures_are_drawn_with_words(tmp_path):
    """A picture that cannot be seen still says what it shows."""
    report.write(RESULTS, "a machine", tmp_path)

    assert (tmp_path / "benchmarks.md").exists()
    for name, words in (
        ("ratios", "connect, 10 ms round trip"),
        ("first-query", "connect: 9 ms (django_lakebase), 10 ms (stock)"),
    ):
        picture = (tmp_path / "charts" / f"{name}.svg").read_text()
        assert f">{words}</text>" in picture


def test_a_connect_has_one_round_trip_fewer_than_stock(local, django_db_blocker):
    """Counted on the wire: the time zone needs no query of its own."""
    with django_db_blocker.unblock():
        figure = connect.round_trips(local)

    assert figure.is_met, figure.figure


def test_a_part_can_be_measured_alone_and_quickly():
    """End to end, in a process of its own."""
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", "pools"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "a request through the pool, one query" in out
    assert "<= 1.02: " in out
    assert "load average" in out

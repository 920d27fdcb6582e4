"""The benchmarks, without their ten minutes."""

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import connect, report
from benchmarks.measurement import (
    WARM_UP_ROUNDS,
    Measurement,
    Ratio,
    Skipped,
    Step,
    compare,
    measure_alternately,
    ratio_of,
)
from benchmarks.round_trip_counter import RoundTripCounter
from django_lakebase.local.client import LocalLakebase

RESULTS: Mapping[str, Sequence[report.Result]] = {
    "connect": [
        Measurement(
            name="connect, 10 ms round trip",
            value="0.83 (0.8 to 0.85): 60.0 ms and 72.0 ms",
            goal="<= 0.9",
            is_met=True,
            ratio=Ratio(0.83, 0.8, 0.85),
            limit=0.9,
        )
    ],
    "token-lifetimes": [
        Measurement(name="many", value="6 credentials", goal="3", is_met=False)
    ],
    "other-pools": [Skipped("port 5432 is already in use")],
    "startup": [
        Step("django_lakebase", "SDK import", 900.0),
        Step("django_lakebase", "connect", 9.0),
        Step("stock", "connect", 10.0),
    ],
}


def test_alternating_works_start_equally_often():
    calls: list[str] = []
    works = [lambda: calls.append("a"), lambda: calls.append("b")]

    seconds = measure_alternately(works, 7, after=lambda: calls.append("."))

    assert [len(times) for times in seconds] == [7, 7]
    assert "".join(calls) == "a.b.b.a." * ((7 + WARM_UP_ROUNDS) // 2)


def test_comparison_is_the_ratio_of_medians_and_meets_its_limit_or_not():
    # One slow round does not change the median.
    assert ratio_of([1.0, 1.0, 9.0, 1.0], [2.0, 2.0, 2.0, 2.0]).value == 0.5
    assert compare("x", ([1.0, 1.0], [2.0, 2.0]), 0.9).is_met is True
    assert compare("x", ([2.0, 2.0], [2.0, 2.0]), 0.9).is_met is False
    assert compare("x", ([2.0, 2.0], [2.0, 2.0])).is_met is None


def test_page_contains_results_missed_goals_and_skipped_benchmarks():
    text = report.render(RESULTS, "2 cores of a machine")

    assert "wrote this page: 2 cores of a machine." in text
    assert "| 0.83 (0.8 to 0.85): 60.0 ms and 72.0 ms | <= 0.9: met |" in text
    assert "| many | 6 credentials | 3: **missed** |" in text
    assert "Not measured in this run: port 5432 is already in use." in text
    assert "| SDK import | 900 ms |  |\n| connect | 9 ms | 10 ms |" in text


def test_charts_contain_their_values_as_text(tmp_path: Path):
    report.write(RESULTS, "a machine", tmp_path)

    assert (tmp_path / "benchmarks.md").exists()
    for name, label in (
        ("ratios", "connect, 10 ms round trip"),
        ("first-query", "connect: 9 ms (django_lakebase), 10 ms (stock)"),
    ):
        chart = (tmp_path / "charts" / f"{name}.svg").read_text()
        assert f">{label}</text>" in chart


def test_round_trips_of_simultaneous_clients_are_counted_separately():
    """A second client may be the engine's own, which opens connections in threads."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        RoundTripCounter.relaying_to(*server.getsockname()) as counter,
    ):
        address = "127.0.0.1", counter.port
        with socket.create_connection(address) as first, server.accept()[0] as answerer:
            first.sendall(b"1")
            answerer.sendall(answerer.recv(1))
            first.sendall(first.recv(1))
            answerer.recv(1)
            with socket.create_connection(address) as second, server.accept()[0] as end:
                second.sendall(b"1")
                end.recv(1)
                second_port = second.getsockname()[1]
            assert counter.take(second_port) == 1
            first_port = first.getsockname()[1]
        assert counter.take(first_port) == 2


def test_connecting_takes_one_round_trip_fewer_than_stock(
    local: LocalLakebase, django_db_blocker
):
    """The time zone travels in the startup packet, so it needs no query."""
    with django_db_blocker.unblock():
        measurement = connect.count_round_trips(local)

    assert measurement.is_met, measurement.value


def test_quick_run_of_one_benchmark_prints_its_results():
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", "pool"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "a request through the pool, one query" in out
    assert "<= 1.02: " in out
    assert "load average" in out

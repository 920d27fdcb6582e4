"""The benchmark page, docs/benchmarks.md, as Markdown and charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import charts
from benchmarks.measurement import Measurement, Skipped, Step

Result = Measurement | Step | Skipped


@dataclass(frozen=True, slots=True)
class Section:
    """The heading of a benchmark, and the text above its table."""

    heading: str
    text: str


INTRODUCTION = """\
# Benchmarks

This page shows what the engine costs compared with Django's own PostgreSQL backend \
and with other connection pools.

`make bench` measured the results and wrote this page: {machine}.
Everything ran on one machine over the loopback interface, against [the local \
Lakebase](reference/local.md), so the ratios mean more than the absolute times. Each \
ratio compares two alternatives that took turns in the same run: it is the ratio of \
their medians, with the interquartile range of the ratios per round in parentheses, \
followed by the two medians. A ratio below 1 means that the engine is faster. *Stock* \
is Django's own PostgreSQL backend with a newly issued token as its `PASSWORD`, so \
that both log in the same way.

![Each ratio as a dot on a logarithmic axis, with its spread and its goal]\
(charts/ratios.svg)

A dot to the left of 1 means that the engine is faster; the vertical mark is the goal.
"""

# The text of a section also explains a missed goal.
SECTIONS = {
    "connect": Section(
        "Connecting with a cached credential",
        "The engine sends the time zone in the startup packet, while stock sets it "
        "with a query, and the engine uses direct TLS, while stock asks for TLS "
        "first, so the engine needs two round trips fewer. A relay between "
        "client and gateway counts the round trips: a round trip begins whenever the "
        "client sends data after it has received data. The Terminate message that "
        "closes the connection counts as a round trip.",
    ),
    "verified-tls": Section(
        "TLS that verifies the server",
        "With `verify-full`, the engine verifies the server with a bundle of public "
        "authorities, to which the emulator's was added; with `require`, it verifies "
        "nothing. For each connection, libpq reads the file of authorities that it is "
        "given, and keeps its contents in memory until the connection is closed. The "
        "memory is the mean of 100 connections in one process. What is left is the "
        "verification itself: two signatures and a small file, about 0.3 ms.",
    ),
    "token-lifetimes": Section(
        "Many connections, few credentials",
        "Three lifetimes need only three credentials if each is used until it "
        "expires. The engine misses this goal because it refreshes a credential "
        "between 50 % and 75 % of its lifetime, so that a short outage of the "
        "workspace goes unnoticed. Three full lifetimes take four to six credentials, "
        "however many connections are opened.",
    ),
    "shared-cache": Section(
        "A shared cache or one fetch per connection",
        "The workspace takes 150 ms for each credential in this benchmark.",
    ),
    "rotation": Section(
        "Tail latency during a refresh",
        "Connections are opened in blocks of 1,000. In every second block, a refresh "
        "starts half-way through, for which the workspace takes 150 ms. No connection "
        "waits for the refresh, because a background thread fetches the credential. "
        "The p99.9 of a block is the slowest of its 1,000 connections, so the spread "
        "is wide.",
    ),
    "pool": Section(
        "Requests through a pool",
        "The request goes through Django's WSGI handler and runs one query. The second "
        "row measures the checkout without the rest of Django, which shows the "
        "engine's overhead of about 15 microseconds of CPU time: it checks whether "
        "settings and environment have changed, and polls the socket.",
    ),
    "other-pools": Section(
        "Compared with other pools",
        "A Python project can also use psycopg_pool with a connection class that "
        "fetches a credential for each physical connection, as in the service's "
        "samples, or the `LakebasePool` of databricks-ai-bridge, which caches its "
        "token for 15 minutes. All pools have the same size and run the same queries. "
        "The time that `LakebasePool` takes to open includes looking up its host and "
        "user. The workspace takes 150 ms for a credential. In the last rows, all "
        "three pools get tokens that live for 5 seconds. The service never issues such "
        "tokens: its tokens live for an hour, four times as long as `LakebasePool` "
        "caches one. These rows show what each pool does when a token expires earlier "
        "than the pool expects.",
    ),
    "idle": Section(
        "A persistent connection that was closed by a suspend",
        "All connections have `CONN_MAX_AGE=None`. When Django decides whether to keep "
        "a connection, the engine polls the connection's socket, which takes no round "
        "trip. Stock checks a connection only with `CONN_HEALTH_CHECKS`, which runs a "
        "query in each request.",
    ),
    "startup": Section(
        "The first query of a new process, and its memory",
        "The engine imports the SDK for the first credential. It imports only the "
        "login and one service; the SDK's own package would load the services of the "
        "whole platform. A parent process can do this work for its workers: with "
        "gunicorn's `preload_app`, one query before the fork gives the SDK and the "
        "credential to all workers. Memory is the proportional set size (PSS), for "
        "which shared pages are divided among the processes; for forked processes it "
        "is the mean of four workers.",
    ),
    "imports": Section(
        "Imports",
        "The engine imports the SDK for the first credential, and the rest before. "
        "With psycopg imported before, the engine takes one millisecond more than its "
        "goal: it reads about 40 modules, and defines a dataclass for the 25 settings "
        "of a connection.",
    ),
    "unreachable": Section("A workspace that never answers", ""),
    "gateway": Section(
        "The emulator's gateway",
        "This is what the emulator's gateway adds to a direct TLS connection to the "
        "same PostgreSQL server. It matters if you measure your own project against "
        "the emulator.",
    ),
}

CHECK = """\
## Check that it works

Run `make bench`, which takes ten minutes and uses a separate environment. It prints \
the results and rewrites this page. `make bench ARGS='--only connect'` measures only \
one section and writes nothing.
"""

STEPS_ALTERNATIVE = (
    "One bar for each backend, divided into the steps to the first query"
)


def write(results: Mapping[str, Sequence[Result]], machine: str, docs: Path) -> None:
    """Write the page and its charts to the folder *docs*."""
    (docs / "charts").mkdir(exist_ok=True)
    all_results = [result for section in results.values() for result in section]
    measurements = [r for r in all_results if isinstance(r, Measurement)]
    steps = [result for result in all_results if isinstance(result, Step)]
    (docs / "charts" / "ratios.svg").write_text(charts.draw_ratios(measurements))
    if steps:
        (docs / "charts" / "first-query.svg").write_text(charts.draw_steps(steps))
    (docs / "benchmarks.md").write_text(render(results, machine))


def render(results: Mapping[str, Sequence[Result]], machine: str) -> str:
    """Return the page of the *results* by section, measured on *machine*."""
    parts = [INTRODUCTION.format(machine=machine)]
    parts += [_section(name, results[name]) for name in SECTIONS if name in results]
    parts.append(CHECK)
    return "\n".join(parts)


def _section(name: str, results: Sequence[Result]) -> str:
    section = SECTIONS[name]
    lines = [f"## {section.heading}", ""]
    if section.text:
        lines += [section.text, ""]
    measurements = [result for result in results if isinstance(result, Measurement)]
    if measurements:
        lines += ["| measurement | result | goal |", "|---|---|---|"]
        lines += [f"| {m.name} | {m.value} | {goal(m)} |" for m in measurements]
        lines.append("")
    steps = [result for result in results if isinstance(result, Step)]
    if steps:
        lines += _steps_table(steps)
    for result in results:
        if isinstance(result, Skipped):
            lines += [f"Not measured in this run: {result.reason}.", ""]
    return "\n".join(lines)


def _steps_table(steps: Sequence[Step]) -> list[str]:
    backends = list(dict.fromkeys(step.backend for step in steps))
    cells = {(s.name, s.backend): f"{s.milliseconds:.0f} ms" for s in steps}
    names = dict.fromkeys(step.name for step in steps)
    return [
        f"![{STEPS_ALTERNATIVE}](charts/first-query.svg)",
        "",
        f"| step of a new process | {' | '.join(backends)} |",
        "|---" * (len(backends) + 1) + "|",
        *(
            f"| {name} | {' | '.join(cells.get((name, b), '') for b in backends)} |"
            for name in names
        ),
        "",
    ]


def goal(measurement: Measurement) -> str:
    """Return the goal of *measurement*, and whether it was met."""
    if measurement.is_met is None:
        return measurement.goal
    return f"{measurement.goal}: {'met' if measurement.is_met else '**missed**'}"

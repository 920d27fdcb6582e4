"""The page of the figures, docs/benchmarks.md: values in, Markdown out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import charts
from benchmarks.measurement import Figure, Skipped, Step

Result = Figure | Step | Skipped


@dataclass(frozen=True, slots=True)
class Part:
    """A heading and what is said below it."""

    heading: str
    prose: str


OPENING = """\
# Benchmarks

For whoever wants to know what the engine costs, beside Django's own and beside what \
else there is.

Measured by `make bench`, which writes this page: {machine}.
Everything ran on one machine over the loopback interface, against \
[the local Lakebase](reference/local.md), so seconds say little and ratios much: each \
figure compares two ways turn by turn in one run. It is the ratio of their medians, \
with the middle half of the rounds' own ratios in brackets, then the two medians; \
below 1 the engine is the quicker one. *Stock* is Django's own PostgreSQL engine, \
given a fresh token as its PASSWORD: the same login on the wire.

![Each ratio as a dot on a logarithmic axis, with its spread and its goal]\
(charts/ratios.svg)

A dot left of 1 means that the engine is the quicker one; the upright mark is the goal.
"""

# Heading and prose of each part; goals that are missed are spoken of here.
PARTS = {
    "connect": Part(
        "A connect with a cached credential",
        "The time zone travels in the startup packet, where stock asks for it in a "
        "query of its own: one round trip fewer. Round trips are counted by a relay "
        "between the client and the gateway, as flights: what the client sends after "
        "it has heard something. The farewell at the end is one of them.",
    ),
    "many": Part(
        "Many connects, few credentials",
        "Three lives could do with three credentials, if each were used to its end. "
        "It is renewed between half and three quarters of its life instead, so that a "
        "workspace that is down for a while is not noticed, and that is what is left "
        "of this goal: three whole lives take four to six, whatever the connects.",
    ),
    "herd": Part(
        "One cache, or a fetch for each connection",
        "The workspace takes 150 ms for each credential here.",
    ),
    "rotation": Part(
        "The slowest connects across a rotation",
        "Blocks of 1,000 connects, one of every two with a rotation in its middle, "
        "while the workspace takes 150 ms. Nobody waits for it: a thread in the "
        "background fetches. The p99.9 of a block is its slowest connect but one "
        "in a thousand, so the spread is wide.",
    ),
    "pools": Part(
        "Requests through a pool",
        "The request goes through Django's WSGI handler, with one query. The second "
        "figure is what is left when everything of Django's but the connection is "
        "taken away: the engine compares settings and environment with what it has "
        "read, and looks at the socket, some 15 microseconds of the processor.",
    ),
    "others": Part(
        "Beside other pools",
        "Two things that a Python project could use without us: psycopg_pool with a "
        "connection class that fetches a credential for each physical connection, as "
        "the service's examples show, and the `LakebasePool` of databricks-ai-bridge, "
        "which caches its token for 15 minutes. Same pool sizes, same queries; its "
        "opening includes the look-up of its host and user. The workspace takes 150 ms "
        "for a credential. The last rows give all three tokens that live for 5 "
        "seconds, which the service never issues: its own live for an hour, four times "
        "as long as that cache. They show what each does when a token ends before it "
        "expects that.",
    ),
    "idle": Part(
        "A kept connection that a suspend has cut",
        "With `CONN_MAX_AGE=None`. The engine looks at the socket, without a round "
        "trip, where Django asks whether to keep a connection; stock looks only with "
        "`CONN_HEALTH_CHECKS`, by a query in each request.",
    ),
    "processes": Part(
        "The first query of a fresh process, and its memory",
        "The SDK is imported when the first credential is needed, and that is where "
        "time and memory go. It cannot be imported in parts: its package loads every "
        "service of the platform, and the engine takes its login and one of them. "
        "What a project can do is let a parent do it: with gunicorn's `preload_app`, "
        "one query before the fork leaves the SDK and the credential to all workers. "
        "Memory is the share of each process when pages are shared out (PSS), of "
        "four workers where they are forked.",
    ),
    "imports": Part(
        "Import",
        "What `import` costs before anything connects.",
    ),
    "unreachable": Part("A workspace that never answers", ""),
    "gateway": Part(
        "The local gateway",
        "What the emulator's gateway adds, beside a direct TLS connection to the same "
        "PostgreSQL: for whoever measures a project of his own against it.",
    ),
}


ALTERNATIVE = "A bar for each engine, whose pieces are the steps to the first query"


def write(results: Mapping[str, Sequence[Result]], machine: str, docs: Path) -> None:
    """Write the page and its pictures into the folder *docs*."""
    (docs / "charts").mkdir(exist_ok=True)
    everything = [result for part in results.values() for result in part]
    figures = [result for result in everything if isinstance(result, Figure)]
    steps = [result for result in everything if isinstance(result, Step)]
    (docs / "charts" / "ratios.svg").write_text(charts.ratios(figures))
    if steps:
        (docs / "charts" / "first-query.svg").write_text(charts.steps(steps))
    (docs / "benchmarks.md").write_text(markdown(results, machine))


def markdown(results: Mapping[str, Sequence[Result]], machine: str) -> str:
    """Return the page of *results*, part by part, measured on *machine*."""
    parts = [OPENING.format(machine=machine)]
    parts += [_part(name, results[name]) for name in PARTS if name in results]
    parts.append(
        "## Check that it works\n\nRun `make bench` (ten minutes; it makes an "
        "environment of its own). It prints the same figures, and "
        "`make bench ARGS='--only connect'` those of one part.\n"
    )
    return "\n".join(parts)


def _part(name: str, results: Sequence[Result]) -> str:
    part = PARTS[name]
    lines = [f"## {part.heading}", ""]
    if part.prose:
        lines += [part.prose, ""]
    figures = [result for result in results if isinstance(result, Figure)]
    if figures:
        lines += ["| what | figure | goal |", "|---|---|---|"]
        lines += [f"| {f.what} | {f.figure} | {goal(f)} |" for f in figures]
        lines.append("")
    steps = [result for result in results if isinstance(result, Step)]
    if steps:
        lines += _steps(steps)
    for result in results:
        if isinstance(result, Skipped):
            lines += [f"Not measured in this run: {result.why}.", ""]
    return "\n".join(lines)


def _steps(steps: Sequence[Step]) -> list[str]:
    ways = list(dict.fromkeys(step.way for step in steps))
    taken = {(step.name, step.way): f"{step.milliseconds:.0f} ms" for step in steps}
    names = dict.fromkeys(step.name for step in steps)
    return [
        f"![{ALTERNATIVE}](charts/first-query.svg)",
        "",
        f"| step of a fresh process | {' | '.join(ways)} |",
        "|---" * (len(ways) + 1) + "|",
        *(
            f"| {name} | {' | '.join(taken.get((name, way), '') for way in ways)} |"
            for name in names
        ),
        "",
    ]


def goal(figure: Figure) -> str:
    """Return the goal of *figure*, and whether it was met."""
    if figure.is_met is None:
        return figure.goal
    return f"{figure.goal}: {'met' if figure.is_met else '**missed**'}"

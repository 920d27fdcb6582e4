"""SVG charts for the benchmark page, readable on light and dark backgrounds."""

import math
from collections.abc import Sequence
from html import escape

from benchmarks.measurement import Measurement, Step

WIDTH, LABEL_WIDTH, ROW_HEIGHT, MARGIN = 1060, 600, 26, 20
# Ratios outside this range appear only in the tables.
LOWEST, HIGHEST = 0.25, 4.0
TICKS = (0.25, 0.5, 1, 2, 4)
COLORS = (
    "#8c9bab",
    "#5b8def",
    "#3fb68b",
    "#d9822b",
    "#c25b9c",
    "#7a5fd0",
    "#d6503f",
    "#b59b00",
)
# The chart draws its own background: a page can be dark while the browser's preferred
# colour scheme is light.
STYLE = """
.background { fill: #ffffff; stroke: #d0d7de }
text { fill: #1f2328; font: 13px system-ui, sans-serif }
.tick { stroke: #8c959f } .even { stroke: #1f2328; stroke-width: 1.5 }
.spread { stroke: #5b8def; stroke-width: 7; stroke-linecap: round; opacity: .45 }
.dot { fill: #1f5fd0 } .goal { stroke: #c9510c; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
  .background { fill: #161b22; stroke: #3d444d } text { fill: #e6edf3 }
  .even { stroke: #e6edf3 } .dot { fill: #79b0ff } .goal { stroke: #ff9d57 }
}
"""


def draw_ratios(measurements: Sequence[Measurement]) -> str:
    """Return a chart of all ratios, with spreads and goals, on one axis."""
    drawn = [
        (measurement, measurement.ratio)
        for measurement in measurements
        if measurement.ratio and LOWEST <= measurement.ratio.value <= HIGHEST
    ]
    bottom = MARGIN + ROW_HEIGHT * (len(drawn) + 1)
    parts = [
        _line(_x(tick), MARGIN, _x(tick), bottom, "even" if tick == 1 else "tick")
        + _text(_x(tick), bottom + 18, f"{tick:g}", "middle")
        for tick in TICKS
    ]
    for number, (measurement, ratio) in enumerate(drawn, 1):
        y = MARGIN + ROW_HEIGHT * number
        parts.append(_text(LABEL_WIDTH, y + 4, measurement.name, "end"))
        parts.append(_line(_x(ratio.low), y, _x(ratio.high), y, "spread"))
        parts.append(f'<circle class="dot" cx="{_x(ratio.value):.1f}" cy="{y}" r="5"/>')
        if measurement.limit:
            goal = _x(measurement.limit)
            parts.append(_line(goal, y - 9, goal, y + 9, "goal"))
    return _chart("".join(parts), bottom + 30, "Ratios with their spread and goals")


def draw_steps(steps: Sequence[Step]) -> str:
    """Return a chart of the startup steps, with one bar for each backend."""
    backends = list(dict.fromkeys(step.backend for step in steps))
    names = list(dict.fromkeys(step.name for step in steps))
    longest = max(
        sum(step.milliseconds for step in steps if step.backend == backend)
        for backend in backends
    )
    scale = (WIDTH - 160 - 2 * MARGIN) / longest
    parts, top = [], MARGIN
    for backend in backends:
        left = 140.0
        parts.append(_text(left - 10, top + 20, backend, "end"))
        for step in (step for step in steps if step.backend == backend):
            width = step.milliseconds * scale
            color = COLORS[names.index(step.name) % len(COLORS)]
            title = f"{step.name}: {step.milliseconds:.0f} ms"
            parts.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="30" '
                f'fill="{color}"><title>{escape(title)}</title></rect>'
            )
            left += width
        top += 44
    parts += [
        _legend_entry(steps, name, number, top + 10)
        for number, name in enumerate(names)
    ]
    bottom = top + 10 + ROW_HEIGHT * ((len(names) + 1) // 2) + MARGIN
    return _chart("".join(parts), bottom, "Time until the first query, by step")


def _legend_entry(steps: Sequence[Step], name: str, number: int, top: int) -> str:
    y = top + ROW_HEIGHT * (number // 2)
    x = 140 + 440 * (number % 2)
    color = COLORS[number % len(COLORS)]
    times = ", ".join(
        f"{step.milliseconds:.0f} ms ({step.backend})"
        for step in steps
        if step.name == name
    )
    return f'<rect x="{x}" y="{y}" width="14" height="14" fill="{color}"/>' + _text(
        x + 22, y + 12, f"{name}: {times}", "start"
    )


def _x(ratio: float) -> float:
    """Return the position of *ratio* on the logarithmic axis."""
    clipped = min(max(ratio, LOWEST), HIGHEST)
    share = math.log(clipped / LOWEST) / math.log(HIGHEST / LOWEST)
    return LABEL_WIDTH + MARGIN + share * (WIDTH - LABEL_WIDTH - 3 * MARGIN)


def _line(x1: float, y1: float, x2: float, y2: float, css_class: str) -> str:
    return (
        f'<line class="{css_class}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
        f'y2="{y2:.1f}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _chart(content: str, height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'role="img"><title>{title}</title><style>{STYLE}</style>'
        f'<rect class="background" x="1" y="1" width="{WIDTH - 2}" '
        f'height="{height - 2}" rx="8"/>{content}</svg>\n'
    ).replace("><", ">\n<")

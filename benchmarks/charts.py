"""The pictures of the page, drawn as SVG: readable on light and dark pages."""

import math
from collections.abc import Sequence
from html import escape

from benchmarks.measurement import Figure, Step

WIDTH, LABELS, ROW, MARGIN = 1060, 600, 26, 20
# Ratios beyond these are in the tables only.
LOWEST, HIGHEST = 0.25, 4.0
TICKS = (0.25, 0.5, 1, 2, 4)
SHADES = (
    "#8c9bab",
    "#5b8def",
    "#3fb68b",
    "#d9822b",
    "#c25b9c",
    "#7a5fd0",
    "#d6503f",
    "#b59b00",
)
# A card of its own: a dark page does not always mean a dark picture.
STYLE = """
.card { fill: #ffffff; stroke: #d0d7de }
text { fill: #1f2328; font: 13px system-ui, sans-serif }
.line { stroke: #8c959f } .even { stroke: #1f2328; stroke-width: 1.5 }
.span { stroke: #5b8def; stroke-width: 7; stroke-linecap: round; opacity: .45 }
.dot { fill: #1f5fd0 } .goal { stroke: #c9510c; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
  .card { fill: #161b22; stroke: #3d444d } text { fill: #e6edf3 }
  .even { stroke: #e6edf3 } .dot { fill: #79b0ff } .goal { stroke: #ff9d57 }
}
"""


def ratios(figures: Sequence[Figure]) -> str:
    """Draw ratios with their spreads, and goals, on one axis."""
    drawn = [f for f in figures if f.ratio and LOWEST <= f.ratio.middle <= HIGHEST]
    bottom = MARGIN + ROW * (len(drawn) + 1)
    parts = [
        _line(_across(tick), MARGIN, _across(tick), bottom, "even" if tick == 1 else "")
        + _text(_across(tick), bottom + 18, f"{tick:g}", "middle")
        for tick in TICKS
    ]
    for number, figure in enumerate(drawn, 1):
        height = MARGIN + ROW * number
        parts.append(_text(LABELS, height + 4, figure.what, "end"))
        ratio = figure.ratio
        if ratio is None:
            continue
        ends = _across(ratio.low), _across(ratio.high)
        middle = _across(ratio.middle)
        parts.append(_line(ends[0], height, ends[1], height, "span"))
        parts.append(f'<circle class="dot" cx="{middle:.1f}" cy="{height}" r="5"/>')
        if figure.most:
            goal = _across(figure.most)
            parts.append(_line(goal, height - 9, goal, height + 9, "goal"))
    return _card("".join(parts), bottom + 30, "Ratios, with their spread and goals")


def steps(taken: Sequence[Step]) -> str:
    """Draw where the time of a fresh process goes, a bar for each way."""
    ways = list(dict.fromkeys(step.way for step in taken))
    names = list(dict.fromkeys(step.name for step in taken))
    longest = max(
        sum(step.milliseconds for step in taken if step.way == way) for way in ways
    )
    scale = (WIDTH - 160 - 2 * MARGIN) / longest
    parts, height = [], MARGIN
    for way in ways:
        left = 140.0
        parts.append(_text(left - 10, height + 20, way, "end"))
        for step in (step for step in taken if step.way == way):
            width = step.milliseconds * scale
            shade = SHADES[names.index(step.name) % len(SHADES)]
            words = f"{step.name}: {step.milliseconds:.0f} ms"
            parts.append(
                f'<rect x="{left:.1f}" y="{height}" width="{width:.1f}" height="30" '
                f'fill="{shade}"><title>{escape(words)}</title></rect>'
            )
            left += width
        height += 44
    for number, name in enumerate(names):
        top = height + 10 + ROW * (number // 2)
        left = 140 + 440 * (number % 2)
        shade = SHADES[number % len(SHADES)]
        parts.append(
            f'<rect x="{left}" y="{top}" width="14" height="14" fill="{shade}"/>'
        )
        spans = [
            f"{step.milliseconds:.0f} ms ({step.way})"
            for step in taken
            if step.name == name
        ]
        parts.append(_text(left + 22, top + 12, f"{name}: {', '.join(spans)}", "start"))
    bottom = height + 10 + ROW * ((len(names) + 1) // 2) + MARGIN
    return _card("".join(parts), bottom, "The time to the first query, step by step")


def _across(ratio: float) -> float:
    """Return where *ratio* is on the axis, which is logarithmic."""
    kept = min(max(ratio, LOWEST), HIGHEST)
    share = math.log(kept / LOWEST) / math.log(HIGHEST / LOWEST)
    return LABELS + MARGIN + share * (WIDTH - LABELS - 3 * MARGIN)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return (
        f'<line class="{kind or "line"}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
        f'y2="{y2:.1f}"/>'
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _card(inner: str, height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'role="img"><title>{title}</title><style>{STYLE}</style>'
        f'<rect class="card" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" '
        f'rx="8"/>{inner}</svg>\n'
    ).replace("><", ">\n<")

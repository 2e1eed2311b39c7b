"""Results as a picture (SVG): ours and the reference side by side, and curves. Readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import chain
from textwrap import wrap

from tests.bench.results import Curve, Range, Result
from tests.bench.table import goal, number

WIDTH = 760
_MARGIN = 24
_BAR_LEFT = 190
_BAR_WIDTH = 430
_ROW = 62
_CHART = 260
_TITLE_CHARACTERS, _NOTE_CHARACTERS = 82, 104
"""What fits on a line, in the widest of the fonts."""

_STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de } .text { fill: #1f2328 } .quiet { fill: #59636e } .grid { stroke: #d8dee4 }
  .ours { fill: #0969da } .reference { fill: #afb8c1 } .yes { fill: #1a7f37 } .no { fill: #cf222e }
  .spread { stroke: #1f2328; stroke-opacity: 0.6 }
  .line0 { stroke: #0969da } .line1 { stroke: #818b98 } .line2 { stroke: #bc4c00 } .line3 { stroke: #8250df }
  .dot0 { fill: #0969da } .dot1 { fill: #818b98 } .dot2 { fill: #bc4c00 } .dot3 { fill: #8250df }
  text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 12px }
  .title { font-size: 15px; font-weight: 600 } .name { font-weight: 600 }
  .end { text-anchor: end } .middle { text-anchor: middle }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #30363d } .text { fill: #e6edf3 } .quiet { fill: #9198a1 } .grid { stroke: #30363d }
    .ours { fill: #4493f8 } .reference { fill: #656c76 } .yes { fill: #3fb950 } .no { fill: #f85149 }
    .spread { stroke: #e6edf3 }
    .line0 { stroke: #4493f8 } .line1 { stroke: #9198a1 } .line2 { stroke: #db6d28 } .line3 { stroke: #ab7df8 }
    .dot0 { fill: #4493f8 } .dot1 { fill: #9198a1 } .dot2 { fill: #db6d28 } .dot3 { fill: #ab7df8 }
  }
"""


def picture(title: str, results: Sequence[Result], curves: Sequence[Curve] = (), note: str = "") -> str:
    """A whole SVG document; ``note`` (the machine) stands below the title."""
    heads = [(text, "text title", 19) for text in wrap(title, _TITLE_CHARACTERS)]
    heads += [(text, "quiet", 17) for text in wrap(note, _NOTE_CHARACTERS)]
    top, head = 11, []
    for text, kind, line in heads:
        top += line
        head.append(_text(_MARGIN, top, text, kind))
    top += 13
    rows = [_row(result, top + index * _ROW) for index, result in enumerate(results)]
    top += len(results) * _ROW
    charts = [_chart(curve, top + index * (_CHART + 60)) for index, curve in enumerate(curves)]
    height = top + len(curves) * (_CHART + 60) + 12
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
            *head,
            *chain.from_iterable([*rows, *charts]),
            "</svg>\n",
        ]
    )


def _row(result: Result, y: int) -> list[str]:
    """A figure: its name, a bar for ours, a bar for the reference, and how they compare."""
    spread = result.spread
    most = max(result.ours, result.reference or 0.0, spread.ours[1], (spread.reference or (0.0, 0.0))[1]) or 1.0
    parts = [_text(_MARGIN, y + 14, result.name, "text name")]
    parts += _bar("envbridge", result.ours, spread.ours, result.unit, most, y + 20, "ours")
    if result.reference is not None:
        name = result.against or "reference"
        parts += _bar(name, result.reference, spread.reference, result.unit, most, y + 36, "reference")
    elif result.why is not None:
        parts.append(_text(_BAR_LEFT, y + 48, f"no {result.against} on this machine", "quiet"))
    if result.ratio is not None:
        parts.append(_text(WIDTH - _MARGIN, y + 31, f"{number(result.ratio)} x", "text name end"))
    if result.goal is not None:
        colour = {True: "yes", False: "no", None: "quiet"}[result.met]
        mark = {True: "\u2713 ", False: "\u2717 ", None: ""}[result.met]
        parts.append(_text(WIDTH - _MARGIN, y + 14, f"{mark}{goal(result)}", f"{colour} end"))
    return parts


def _bar(name: str, value: float, spread: Range | None, unit: str, most: float, y: int, colour: str) -> list[str]:
    """A bar, ``most`` being the longest, with a thin line from the least repetition to the greatest."""
    least, greatest = ((_BAR_WIDTH - 110) * each / most for each in spread or (value, value))
    width = max(2.0, (_BAR_WIDTH - 110) * value / most)
    parts = [
        _text(_BAR_LEFT - 8, y + 11, name, "quiet end"),
        f'<rect class="{colour}" x="{_BAR_LEFT}" y="{y + 1}" width="{width:.1f}" height="12" rx="2"/>',
        _text(_BAR_LEFT + max(width, greatest) + 6, y + 11, f"{number(value)} {unit}", "text"),
    ]
    if least < greatest:
        ends = f'x1="{_BAR_LEFT + least:.1f}" x2="{_BAR_LEFT + greatest:.1f}"'
        parts.append(f'<line class="spread" {ends} y1="{y + 7}" y2="{y + 7}"/>')
    return parts


def _chart(curve: Curve, y: int) -> list[str]:
    """A chart with logarithmic axes; points that are not above zero are left out."""
    lines = [(line.name, [point for point in line.points if min(point) > 0]) for line in curve.lines]
    points = [point for _, each in lines for point in each]
    parts = [_text(_MARGIN, y + 14, f"{curve.name}, {curve.unit}", "text name")]
    if not points:
        return parts
    left, right, top, bottom = 80.0, WIDTH - _MARGIN - 12.0, y + 54.0, y + _CHART + 8.0
    place_x, ticks_x = _scale([point[0] for point in points], left, right)
    place_y, ticks_y = _scale([point[1] for point in points], bottom, top)
    for value in ticks_y:
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{place_y(value):.1f}" y2="{place_y(value):.1f}"/>')
        parts.append(_text(left - 8, place_y(value) + 4, number(value), "quiet end"))
    for value in ticks_x:
        parts.append(_text(place_x(value), bottom + 18, number(value), "quiet middle"))
    parts.append(_text(right, bottom + 34, curve.x, "quiet end"))
    for index, (name, each) in enumerate(lines):
        path = " ".join(f"{place_x(x):.1f},{place_y(value):.1f}" for x, value in each)
        parts.append(f'<polyline class="line{index % 4}" points="{path}" fill="none" stroke-width="2"/>')
        for x, value in each:
            parts.append(f'<circle class="dot{index % 4}" cx="{place_x(x):.1f}" cy="{place_y(value):.1f}" r="3.5"/>')
            if index == 0:
                beside_axis = place_x(x) < left + 24
                place = (place_x(x) + 6, "text") if beside_axis else (place_x(x), "text middle")
                parts.append(_text(place[0], place_y(value) - 8, number(value), place[1]))
        parts.append(f'<rect class="dot{index % 4}" x="{_MARGIN + index * 175}" y="{y + 21}" width="10" height="10" rx="2"/>')
        parts.append(_text(_MARGIN + index * 175 + 15, y + 30, name, "quiet"))
    return parts


def _scale(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between start and end, on whole powers of ten, and the powers to mark."""
    low = math.floor(math.log10(min(values)) + 1e-9)
    high = max(low + 1, math.ceil(math.log10(max(values)) - 1e-9))

    def place(value: float) -> float:
        return start + (math.log10(value) - low) / (high - low) * (end - start)

    return place, [10.0**power for power in range(low, high + 1)]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'

"""Small charts as inline SVG: no script, no outside reference; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 640
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 36


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point; `low` and `high` draw its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A named row of points; `style` is the class that gives it its colour."""

    name: str
    style: str
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class Axis:
    """The range of an axis in data units and where its ticks stand."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where `value` stands between the ends, 0 to 1; beyond the ends it is held at the end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def nice_axis(values: Sequence[float], *, with_zero: bool = False, ticks: int = 5) -> Axis:
    """An axis around `values` with round ticks (steps of 1, 2 or 5 times a power of ten)."""
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9:
        margin = max(abs(high) * 0.1, 0.5)
        low, high = low - margin, high + margin
    rough = (high - low) / ticks
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return Axis(first * step, last * step, tuple(i * step for i in range(first, last + 1)))


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float],
    with_zero: bool = False,
    height: int = 280,
    dots: bool = True,
) -> str:
    """Lines with dots and interval bars over shared axes, a tooltip (SVG title) on every dot."""
    values = [value for row in series for mark in row.marks for value in (mark.y, mark.low, mark.high)]
    y_axis = nice_axis([value for value in values if value is not None], with_zero=with_zero)
    low_x, high_x = (min(x_ticks), max(x_ticks)) if x_ticks else (0.0, 1.0)
    margin = 0.06 * (high_x - low_x) or 0.5
    x_axis = Axis(low_x - margin, high_x + margin, tuple(x_ticks))
    frame = _Frame(x_axis, y_axis, height)
    body = [frame.grid(x_label, y_label)]
    offsets = [(i - (len(series) - 1) / 2) * 5 for i in range(len(series))]
    for row, offset in zip(series, offsets, strict=True):
        body.append(frame.line(row, offset if dots else 0.0, dots=dots))
    return _svg(title, height, "".join(body))


def share_bars(rows: Sequence[tuple[str, Sequence[int]]], *, title: str, parts: Sequence[str]) -> str:
    """One full-width bar a row, divided in proportion; part i has the class `p{i}` and a tooltip."""
    bar, gap, left = 24, 10, 96
    height = 8 + len(rows) * (bar + gap)
    body = []
    for index, (label, amounts) in enumerate(rows):
        y = 4 + index * (bar + gap)
        body.append(
            f'<text class="tick" x="{left - 10}" y="{y + 16}" text-anchor="end">{escape(label)}</text>'
        )
        total, x, room = sum(amounts), float(left), WIDTH - left - RIGHT
        for i, amount in enumerate(amounts):
            if not amount:
                continue
            wide = room * amount / total
            tip = f"<title>{escape(parts[i])}: {amount} of {total} pairs</title>"
            shape = f'<rect class="p{i}" x="{x:.1f}" y="{y}" width="{max(0.5, wide - 1):.1f}" height="{bar}">'
            body.append(f"{shape}{tip}</rect>")
            if wide > 22:
                middle = x + wide / 2
                body.append(
                    f'<text class="inbar t{i}" x="{middle:.1f}" y="{y + 16}" text-anchor="middle">{amount}</text>'
                )
            x += wide
    return _svg(title, height, "".join(body))


class _Frame:
    """The plot area of a chart: turns data units into pixels."""

    def __init__(self, x_axis: Axis, y_axis: Axis, height: int) -> None:
        self.x_axis, self.y_axis, self.height = x_axis, y_axis, height

    def x(self, value: float) -> float:
        return LEFT + self.x_axis.share(value) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - self.y_axis.share(value) * (self.height - TOP - BOTTOM)

    def grid(self, x_label: str, y_label: str) -> str:
        """Grid lines, tick labels and the names of the axes."""
        parts = []
        for tick in self.y_axis.ticks:
            style = "zero" if abs(tick) < 1e-9 else "grid"
            y = self.y(tick)
            parts.append(
                f'<line class="{style}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_tick(tick)}</text>'
            )
        base = self.height - BOTTOM
        for tick in _thinned(self.x_axis.ticks):
            parts.append(
                f'<text class="tick" x="{self.x(tick):.1f}" y="{base + 16}" text-anchor="middle">{_tick(tick)}</text>'
            )
        middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
        parts.append(
            f'<text class="axis" x="{middle:.0f}" y="{self.height - 4}" text-anchor="middle">{escape(x_label)}</text>'
        )
        parts.append(
            f'<text class="axis" x="12" y="{TOP + (base - TOP) / 2:.0f}" text-anchor="middle"'
            f' transform="rotate(-90 12 {TOP + (base - TOP) / 2:.0f})">{escape(y_label)}</text>'
        )
        return "".join(parts)

    def line(self, row: Series, offset: float, *, dots: bool) -> str:
        """One series; `offset` pixels to the side keep the interval bars of several series apart."""
        points = " ".join(f"{self.x(mark.x) + offset:.1f},{self.y(mark.y):.1f}" for mark in row.marks)
        parts = [f'<polyline class="line" points="{points}"/>'] if len(row.marks) > 1 else []
        for mark in row.marks:
            x, y = self.x(mark.x) + offset, self.y(mark.y)
            if mark.low is not None and mark.high is not None:
                low, high = self.y(mark.low), self.y(mark.high)
                parts.append(
                    f'<path class="bar" d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8'
                    f'M{x - 4:.1f} {high:.1f}h8"/>'
                )
            if dots or len(row.marks) == 1:
                span = (
                    "" if mark.low is None or mark.high is None else f" [{mark.low:+.0f}, {mark.high:+.0f}]"
                )
                tip = f"<title>{escape(row.name)}: {mark.y:+.4g}{span}</title>"
                parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4">{tip}</circle>')
        return f'<g class="{row.style}">{"".join(parts)}</g>'


def _svg(title: str, height: int, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 1e-9 else f"{value:.4g}"


def _thinned(ticks: Sequence[float], most: int = 14) -> Sequence[float]:
    return ticks[:: math.ceil(len(ticks) / most)] if ticks else ticks

"""A plot as inline SVG: axes with units, lines with gaps, thresholds as dashed lines. No script, no style.

Colours come from the page's style sheet by class (``s0`` to ``s7``, ``limit``, ``gap``), so that one drawing serves
light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape

from glitchtip_core.text import printable

WIDTH, HEIGHT = 640, 272
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 40, 34
COLOURS = 8
#: Points of one line at most (the extremes of each stretch are kept).
MOST_POINTS = 600


def text(value: object, longest: int = 300) -> str:
    """``value`` for HTML and SVG: escaped, without control and direction characters, clipped."""
    plain = printable(value, "\N{REPLACEMENT CHARACTER}")
    if len(plain) > longest:
        plain = plain[: longest - 1] + "…"
    return escape(plain, quote=True)


@dataclass(frozen=True)
class Line:
    """One line of a plot, a value a time; NaN is a gap.

    ``missed``: single marks that something was missed. ``dashed``: lets a line that it covers be seen.
    """

    label: str
    values: Sequence[float]
    missed: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Limit:
    """A threshold, drawn as a line at ``value``."""

    value: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A plot. ``times`` in epoch seconds, ascending; ``top`` fixes the upper end of the axis."""

    id: str
    title: str
    unit: str
    times: Sequence[float]
    lines: Sequence[Line]
    limits: Sequence[Limit] = ()
    gaps: Sequence[tuple[float, float]] = ()
    top: float | None = None
    logarithmic: bool = False
    whole: bool = False
    note: str = ""
    bounds: tuple[float, float] | None = field(default=None)

    @property
    def measured(self) -> bool:
        """Whether there is anything to draw."""
        return any(math.isfinite(value) for line in self.lines for value in line.values)


def nice_step(span: float, ticks: int = 5) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides ``span`` into about ``ticks``."""
    raw = span / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.6g}"


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool

    def share(self, value: float) -> float:
        """0 at the lower end, 1 at the upper."""
        if self.logarithmic:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _axis(chart: Chart) -> _Axis:
    values = [value for line in chart.lines for value in line.values if math.isfinite(value)]
    values += [limit.value for limit in chart.limits]
    if chart.logarithmic:
        positive = [value for value in values if value > 0] or [1.0]
        marks = [factor * 10.0**power for power in range(-3, 5) for factor in (1, 2, 5)]
        low = max((mark for mark in marks[:-1] if mark <= min(positive)), default=marks[0])
        high = min((mark for mark in marks if mark >= max(positive) and mark > low), default=marks[-1])
        return _Axis(low, high, [mark for mark in marks if low <= mark <= high], True)
    highest = max([*values, 1.0 if chart.whole else 0.0])
    high = chart.top if chart.top is not None and highest <= chart.top else (highest * 1.08 or 1.0)
    step = nice_step(high)
    if chart.whole:
        step = max(1.0, step)
    if chart.top is None or high != chart.top:
        high = math.ceil(high / step - 1e-9) * step
    return _Axis(0.0, high, [step * count for count in range(round(high / step) + 1)], False)


def segments(times: Sequence[float], values: Sequence[float], longest_gap: float) -> Iterator[list[tuple[float, float]]]:
    """Stretches of the line without a missing value and without more than ``longest_gap`` seconds between."""
    part: list[tuple[float, float]] = []
    for at, value in zip(times, values, strict=True):
        broken = not math.isfinite(value) or (part and not 0 <= at - part[-1][0] <= longest_gap)
        if broken and part:
            yield part
            part = []
        if math.isfinite(value):
            part.append((at, value))
    if part:
        yield part


def thin(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most ``most`` points: of each of equal stretches the lowest and the highest, in their order."""
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / max(1, most // 2))
    result: list[tuple[float, float]] = []
    for begin in range(0, len(points), size):
        stretch = points[begin : begin + size]
        ends = {min(stretch, key=_value), max(stretch, key=_value)}
        result += sorted(ends)
    return result


def style_of(number: int, line: Line) -> str:
    """Classes of the ``number``-th line of a plot: colours first, then the same again dashed."""
    if line.missed:
        return "missed"
    return f"s{number % COLOURS}{' dashed' if line.dashed or number >= COLOURS else ''}"


def _value(point: tuple[float, float]) -> float:
    return point[1]


def _time_ticks(first: float, last: float) -> list[tuple[float, str]]:
    """Up to five moments on whole units, with what to write at them (UTC)."""
    span = max(last - first, 1.0)
    steps = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800)
    step = next((step for step in steps if span / step <= 5), 172800)
    pattern = "%H:%M:%S" if step < 60 else "%H:%M" if span <= 86400 else "%a %H:%M" if step < 86400 else "%d %b"
    begin = math.ceil(first / step) * step
    moments = [begin + step * count for count in range(int((last - begin) // step) + 1)]
    return [(moment, datetime.fromtimestamp(moment, UTC).strftime(pattern)) for moment in moments]


def _x_scale(chart: Chart) -> tuple[Callable[[float], float], float, float]:
    first, last = chart.bounds or (chart.times[0], chart.times[-1])
    last = max(last, first + 1.0)
    width = WIDTH - _LEFT - _RIGHT
    return (lambda at: _LEFT + width * (at - first) / (last - first)), first, last


def svg(chart: Chart, longest_gap: float) -> str:
    """The drawing. ``longest_gap``: seconds between two samples above which the line is interrupted."""
    axis = _axis(chart)
    x, first, last = _x_scale(chart)
    height = HEIGHT - _TOP - _BOTTOM

    def y(value: float) -> float:
        return _TOP + height * (1.0 - min(1.0, axis.share(value)))

    name = text(f"{chart.title} in {chart.unit} over time")
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">']
    for begin, end in chart.gaps:
        left = max(x(begin), _LEFT)
        parts.append(
            f'<rect class="gap" x="{left:.1f}" y="{_TOP}" width="{max(1.0, x(end) - left):.1f}" height="{height}"/>'
        )
    for tick in axis.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_figure(tick)}</text>'
        )
    parts.append(f'<text class="tick" x="2" y="20">{text(chart.unit)}</text>')
    for moment, label in _time_ticks(first, last):
        anchor = "start" if x(moment) < _LEFT + 20 else "end" if x(moment) > WIDTH - 40 else "middle"
        parts.append(f'<path class="grid" d="M{x(moment):.1f} {_TOP + height}v5"/>')
        parts.append(
            f'<text class="tick" x="{x(moment):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{label}</text>'
        )
    for number, line in enumerate(chart.lines):
        parts += _drawn(chart, line, style_of(number, line), x, y, longest_gap)
    for limit in chart.limits:
        at = y(limit.value)
        above = at - 5
        parts.append(f'<path class="limit" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="limit-label" x="{WIDTH - _RIGHT - 4}" y="{above:.1f}" text-anchor="end">{text(limit.label)}</text>'
        )
    parts.append("</svg>")
    return "".join(parts)


def _drawn(
    chart: Chart,
    line: Line,
    style: str,
    x: Callable[[float], float],
    y: Callable[[float], float],
    longest_gap: float,
) -> Iterator[str]:
    stretches = list(segments(chart.times, line.values, 0.0 if line.missed else longest_gap))
    if len(stretches) > MOST_POINTS:  # it comes and goes all the time: the page must stay small
        stretches = stretches[:: math.ceil(len(stretches) / MOST_POINTS)]
    total = sum(len(stretch) for stretch in stretches)
    path: list[str] = []
    for stretch in stretches:
        if len(stretch) == 1:
            at, value = stretch[0]
            yield f'<circle class="{style}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="2.5"/>'
            continue
        points = thin(stretch, max(2, MOST_POINTS * len(stretch) // max(total, 1)))
        path.append("M" + "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in points))
    if path:
        yield f'<path class="line {style}" d="{"".join(path)}"/>'

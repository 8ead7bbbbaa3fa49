"""One line of the verdict, and how its parts are made."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 5


@dataclass
class Reasons:
    """The first few reasons of a criterion, and how many there were."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, text: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(text)

    def listed(self) -> list[str]:
        """At most six lines."""
        more = [f"... and {self.count - _SHOWN} more"] if self.count > _SHOWN else []
        return [*self.first, *more]


@dataclass(frozen=True)
class Criterion:
    """One line of the verdict. ``met`` is None when it was not measured or does not apply: see ``note``."""

    id: str
    name: str
    value: str
    threshold: str
    met: bool | None
    reasons: list[str] = field(default_factory=list)
    note: str = ""


def judged(
    id_: str, name: str, value: str, threshold: str, reasons: list[str], note: str = ""
) -> Criterion:
    """A criterion that is met when there is no reason against it."""
    return Criterion(id_, name, value, threshold, not reasons, reasons, note)


def unjudged(id_: str, name: str, threshold: str, note: str, value: str = "-") -> Criterion:
    """A criterion that was not measured, does not apply, or is shown only; ``note`` says which."""
    return Criterion(id_, name, value, threshold, None, [], note)


def percentile(ordered: list[float], percent: float) -> float:
    """The value that ``percent`` of them do not exceed (nearest rank); ``ordered`` ascending, not empty."""
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def number(value: float, digits: int = 1) -> str:
    """A figure for people: no trailing zeros."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"

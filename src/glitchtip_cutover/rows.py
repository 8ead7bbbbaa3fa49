"""Rows for people: one a service, however many instances it has, and a table with figures that add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
_COLUMNS = {
    "name": "SERVICE",
    "instances": "INSTANCES",
    "status": "STATUS",
    "old": "FROM",
    "new": "TO",
    "dsn_host": "REPORTS TO",
    "pm2_dsn_host": "OWN DSN",
    "action": "ACTION",
    "proof": "PROOF",
    "event_id": "EVENT",
    "seconds": "SECONDS",
    "note": "NOTE",
}
_WAYS = {"own_event": "by an event of its own", "probe": "by a probe"}


def one_per_service(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The same rows with those of one service (the instances of a cluster) made one, counted as ``instances``.

    Texts that differ stand side by side, of numbers the highest counts; process ids are those of the first.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row["name"]), []).append(row)
    merged: list[Row] = []
    for name, group in groups.items():
        instances = sum(int(row.get("instances", 1)) for row in group)
        values = {key: _joined(key, [row.get(key) for row in group]) for key in group[0] if key != "instances"}
        merged.append({"name": name, "instances": instances, **values})
    return merged


def _joined(key: str, values: Sequence[Any]) -> Any:
    known = [value for value in values if value not in (None, "")]
    if not known or len({str(value) for value in known}) == 1 or key.startswith("pid"):
        return known[0] if known else values[0]
    if all(isinstance(value, str) for value in known):
        return ", ".join(dict.fromkeys(known)) if key != "event_id" else known[0]
    return max(value for value in known if not isinstance(value, str))


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Aligned lines with a header, for terminals; empty columns are left out."""
    shown = [key for key in _COLUMNS if any(_cell(row.get(key)) not in ("", "-") for row in rows)]
    if all(row.get("instances", 1) == 1 for row in rows):
        shown = [key for key in shown if key != "instances"]
    cells = [[_COLUMNS[key] for key in shown], *[[_cell(row.get(key)) for key in shown] for row in rows]]
    widths = [max(len(line[column]) for line in cells) for column in range(len(shown))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def figures(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many services were proven and in which way, in one sentence whose numbers add up; empty without proofs."""
    services = [row for row in one_per_service(rows) if "proof" in row]
    if not services:
        return ""
    without = [row for row in services if row["proof"] == "none" and "no SDK" in str(row.get("note"))]
    judged = [row for row in services if row not in without]
    proven = [row for row in judged if row["proof"] in _WAYS]
    parts = [
        f"{count} {text}" for kind, text in _WAYS.items() if (count := sum(row["proof"] == kind for row in proven))
    ]
    instances = sum(row["instances"] for row in judged)
    processes = f" ({instances} processes)" if instances != len(judged) else ""
    sentence = f"{len(proven)} of {len(judged)} services{processes} proven"
    sentence += f", {' and '.join(parts)}" if parts else ""
    events = len({row["event_id"] for row in proven if row.get("event_id")})
    sentence += f"; {events} events"
    return sentence + (f"; {len(without)} without an SDK" if without else "")

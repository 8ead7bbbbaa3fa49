"""From what an SDK sent to what is stored: title, culprit, tags, metadata, grouping hash.

The rules are Sentry's own, as the measured server applies them: the title is ``Type: value`` of the last
exception or the first line of the message, the culprit is the transaction or the frame that crashed, and
events group by title + culprit + type, or by their ``fingerprint``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any

LEVELS = ("sample", "debug", "info", "warning", "error", "fatal")
MAX_TAG_VALUE = 225
MAX_TITLE = 100

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """An event ready to be stored; times are aware, ``id`` has 32 hex digits."""

    id: str
    project: int
    received: dt.datetime
    timestamp: dt.datetime
    type: str
    level: str
    title: str
    culprit: str
    metadata: Json
    issue_metadata: Json
    tags: dict[str, str]
    hash: str
    search: str
    data: Json


def normalize(project: int, event_id: str, received: dt.datetime, raw: Json) -> Event:
    """Everything that is derived from a payload. Never raises for a payload that passed ingest."""
    values = exceptions(raw)
    message = message_of(raw)
    if values:
        kind = "error"
        metadata = _error_metadata(values)
        title = _error_title(values[-1])
    else:
        kind = "default"
        title = _first_line(message) if message else "<unlabeled event>"
        metadata = {"title": title}
    culprit = str(raw.get("transaction") or "") or _culprit(raw, values)
    level = str(raw.get("level") or "error")
    search = " ".join(
        part for part in (title, message, culprit, *(_plain(value) for value in values)) if part
    )
    return Event(
        id=event_id,
        project=project,
        received=received,
        timestamp=_time(raw.get("timestamp")) or received,
        type=kind,
        level=level if level in LEVELS else "error",
        title=title,
        culprit=culprit,
        metadata=metadata,
        issue_metadata=metadata if values else {},
        tags=tags_of(raw),
        hash=_hash(title, culprit, kind, raw.get("fingerprint")),
        search=search[:4000],
        data=raw,
    )


def exceptions(raw: Json) -> list[Json]:
    """The exception values, the one that was raised last at the end."""
    found = raw.get("exception")
    if isinstance(found, dict):
        found = found.get("values")
    return [value for value in found or [] if isinstance(value, dict)]


def frames(value: Json) -> list[Json]:
    """The frames of an exception value, the innermost last."""
    trace = value.get("stacktrace")
    found = trace.get("frames") if isinstance(trace, dict) else None
    return [frame for frame in found or [] if isinstance(frame, dict)]


def message_of(raw: Json) -> str:
    """The formatted message of a message event, or an empty text."""
    for name in ("logentry", "message"):
        found = raw.get(name)
        if isinstance(found, dict):
            found = found.get("formatted") or found.get("message")
        if found:
            return str(found)
    return ""


def _first_line(text: str) -> str:
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 3] + "..."


def _plain(value: Json) -> str:
    return f"{value.get('type') or ''} {value.get('value') or ''}"


def _error_title(value: Json) -> str:
    kind = str(value.get("type") or "Error")
    text = value.get("value")
    line = _first_line(str(text)) if text else ""
    return f"{kind}: {line}" if line else kind


def _crash_frame(value: Json) -> Json | None:
    found = frames(value)
    own = [frame for frame in found if frame.get("in_app")]
    return (own or found)[-1] if found else None


def _error_metadata(values: list[Json]) -> Json:
    value = values[-1]
    metadata = {"type": value.get("type") or "Error", "value": str(value.get("value") or "")[:1024]}
    frame = _crash_frame(value)
    if frame:
        metadata["filename"] = frame.get("filename") or frame.get("abs_path") or ""
        metadata["function"] = frame.get("function") or ""
    return metadata


def _culprit(raw: Json, values: list[Json]) -> str:
    for value in reversed(values):
        frame = _crash_frame(value)
        if frame is None:
            continue
        place = frame.get("module") or frame.get("filename")
        if not place:
            return ""
        function = frame.get("function") or "?"
        if raw.get("platform") in {"javascript", "node"}:
            return f"{function}({place})"
        return f"{place} in {function}"
    return ""


def tags_of(raw: Json) -> dict[str, str]:
    """The event's tags together with those that are made of environment, release, server, user and system."""
    sent = raw.get("tags") or {}
    pairs = (
        sent.items() if isinstance(sent, dict) else [pair for pair in sent if isinstance(pair, list | tuple)]
    )
    tags = {str(pair[0]): pair[1] for pair in pairs if len(pair) == 2}
    for name in ("environment", "release", "server_name"):
        tags[name] = raw.get(name) or tags.get(name)
    user = raw.get("user") or {}
    for name in ("id", "email", "username"):
        tags[f"user.{name}"] = user.get(name)
    system = (raw.get("contexts") or {}).get("os")
    if isinstance(system, dict):
        tags["os.name"] = system.get("name")
    return {key: str(value)[:MAX_TAG_VALUE] for key, value in tags.items() if value not in (None, "")}


def _time(value: Any) -> dt.datetime | None:
    try:
        if isinstance(value, int | float):
            return dt.datetime.fromtimestamp(value, dt.UTC)
        parsed = dt.datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)


def _hash(title: str, culprit: str, kind: str, fingerprint: Any) -> str:
    default = title + culprit + kind
    if isinstance(fingerprint, list) and fingerprint:
        text = "".join(
            default if "default" in str(part) and "{{" in str(part) else str(part) for part in fingerprint
        )
    else:
        text = default
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()

"""From what an SDK sent to what is stored: title, culprit, tags, metadata, grouping hash.

The rules are Sentry's own, as the measured server applies them: the title is ``Type: value`` of the last
exception or the message, both cut to 100 characters, the culprit is the transaction or the frame that crashed, and
events group by title + culprit + type, or by their ``fingerprint``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

LEVELS = ("sample", "debug", "info", "warning", "error", "fatal")
MAX_TAG_VALUE = 255
MAX_TITLE = 100
MAX_CULPRIT = 200
MAX_SEARCH = 2048
MAX_SEARCH_PART = 250
MAX_SEARCH_TRACES = 2
MAX_SEARCH_FRAMES = 3
MAX_SEARCH_FILES = 5

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
    kind = "error" if values else "default"
    title = _cut(full_title(raw))
    metadata = _error_metadata(values) if values else {"title": title}
    culprit = _cut(
        str(raw.get("culprit") or raw.get("transaction") or "") or _culprit(raw, values), MAX_CULPRIT
    )
    level = str(raw.get("level") or "error")
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
        search=_search_text(raw, title, culprit, values),
        data=raw,
    )


def full_title(raw: Json) -> str:
    """The title before it is cut to 100 characters: of the last exception, else the whole message."""
    values = exceptions(raw)
    if not values:
        return message_of(raw) or "<untitled>"
    value = values[-1]
    mechanism = value.get("mechanism")
    if isinstance(mechanism, dict) and mechanism.get("synthetic"):
        return str(_error_metadata(values).get("function") or "<unknown>")
    kind = str(value.get("type") or "Error")
    lines = str(value.get("value") or "").splitlines()
    return f"{kind}: {_cut(lines[0])}" if lines else kind


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


def message_data(raw: Json) -> Json | None:
    """What the entry of a message shows: ``message``, ``params`` and ``formatted``, as far as there."""
    for name in ("logentry", "message"):
        found = raw.get(name)
        if isinstance(found, str) and found:
            return {"formatted": found}
        if isinstance(found, dict) and (found.get("formatted") or found.get("message")):
            shown = {key: found[key] for key in ("params", "message") if found.get(key) is not None}
            return {**shown, "formatted": found.get("formatted") or _interpolated(found)}
    return None


def message_of(raw: Json) -> str:
    """The formatted message of a message event, or an empty text."""
    return str((message_data(raw) or {}).get("formatted") or "")


def _interpolated(found: Json) -> str:
    text, params = str(found["message"]), found.get("params")
    try:
        if isinstance(params, list) and params:
            return text % tuple(params)
        if isinstance(params, dict):
            return text.format(**params)
    except (TypeError, ValueError, LookupError):
        pass
    return text


def _cut(text: str, longest: int = MAX_TITLE) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _search_text(raw: Json, title: str, culprit: str, values: list[Json]) -> str:
    """What free text is looked for in: title, culprit, address of the request and names of files."""
    parts = {title[:MAX_SEARCH_PART], culprit[:MAX_SEARCH_PART]}
    request = raw.get("request")
    if isinstance(request, dict) and request.get("url"):
        url = urlsplit(str(request["url"]))
        scheme = f"{url.scheme}://" if url.scheme and url.netloc else ""
        parts.add(f"{scheme}{url.netloc}{url.path[:MAX_SEARCH_PART]}"[:MAX_SEARCH_PART])
    names: list[str] = []
    for value in [value for value in values if frames(value)][:MAX_SEARCH_TRACES]:
        found = [str(frame["filename"]) for frame in reversed(frames(value)) if frame.get("filename")]
        names += [name.rpartition("/")[2][:100] for name in found[:MAX_SEARCH_FRAMES]]
    parts.update(names[:MAX_SEARCH_FILES])
    return " ".join(sorted(part for part in parts if part))[:MAX_SEARCH]


def _crash_frame(value: Json) -> Json | None:
    found = frames(value)
    own = [frame for frame in found if frame.get("in_app")]
    return (own or found)[-1] if found else None


def _error_metadata(values: list[Json]) -> Json:
    value = values[-1]
    metadata = {"value": str(value.get("value") or "")[:1024]}
    mechanism = value.get("mechanism")
    if not (isinstance(mechanism, dict) and mechanism.get("synthetic")):
        metadata["type"] = str(value.get("type") or "Error")[:128]
    frame = _crash_frame(value)
    if frame:
        metadata["filename"] = frame.get("filename") or frame.get("abs_path") or ""
        metadata["function"] = frame.get("function") or ""
    return metadata


def _culprit(raw: Json, values: list[Json]) -> str:
    mechanism = values[-1].get("mechanism") if values else None
    if isinstance(mechanism, dict) and mechanism.get("synthetic"):
        return ""
    traces = [frames(value) for value in values if frames(value)]
    found = _place(traces[-1], raw.get("platform")) if traces else ""
    request = raw.get("request")
    if not found and isinstance(request, dict):
        found = str(request.get("url") or "")
    return found


def _place(trace: list[Json], platform: Any) -> str:
    """Where it broke: the innermost frame of the program itself, else the innermost one."""
    other = None
    for frame in reversed(trace):
        named = frame.get("platform") or platform
        where, function = frame.get("module") or frame.get("filename"), frame.get("function") or "?"
        if named in {"objc", "cocoa", "native"}:
            shown = str(function)
        elif not where:
            shown = ""
        else:
            shown = f"{function}({where})" if named in {"javascript", "node"} else f"{where} in {function}"
        if frame.get("in_app") and shown:
            return shown
        if not frame.get("in_app") and other is None:
            other = shown
    return other or ""


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
    default = title + culprit + ("1" if kind == "error" else "0")
    if isinstance(fingerprint, list) and fingerprint:
        text = "".join(default if part == "{{ default }}" else str(part or "") for part in fingerprint)
    else:
        text = default
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()

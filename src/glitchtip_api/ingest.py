"""Sending an event and waiting until it can be read back: the only proof that a DSN works."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from .client import Client
from .dsn import Dsn, parse_dsn
from .errors import GlitchTipError
from .resources.events import normal_event_id
from .transport import Options, Transport

POLL_SECONDS = 0.5  # the worker stores in batches every 2 s


def envelope(event: Mapping[str, Any]) -> bytes:
    """The body of an envelope with one event. Its item says its `length`: without it parsing is slow."""
    payload = json.dumps(event, separators=(",", ":")).encode()
    header = json.dumps({"event_id": event["event_id"]}, separators=(",", ":")).encode()
    item = json.dumps({"type": "event", "length": len(payload)}, separators=(",", ":")).encode()
    return b"\n".join((header, item, payload, b""))


def send_event(
    dsn: Dsn | str,
    event: Mapping[str, Any],
    *,
    now: Callable[[], float] = time.time,
    **options: Unpack[Options],
) -> str:
    """Send one event and return its id (32 hexadecimal digits).

    `event` is in the SDKs' form (``message``, ``level``, ``tags`` ...); event id, timestamp, platform and
    level are filled in when absent. Sent once: a 200 says accepted, not stored, so follow with `await_event`.
    `options` are those of `Transport`: timeouts, certificates, `read_only`.

    Raises InvalidError for a bad DSN or event id, ReadOnlyError when it may only read, GlitchTipError when the
    server refuses. Never guess a key: one wrong key blocks its whole project for 30 s.
    """
    target = parse_dsn(dsn) if isinstance(dsn, str) else dsn
    event_id = normal_event_id(str(event.get("event_id") or uuid.uuid4().hex))
    complete = {"timestamp": now(), "platform": "other", "level": "error", **event, "event_id": event_id}
    headers = {
        "Content-Type": "application/x-sentry-envelope",
        "X-Sentry-Auth": f"Sentry sentry_version=7, sentry_client=glitchtip-api/1, sentry_key={target.key}",
    }
    try:
        Transport(target.base_url, **options).send(
            "POST", target.envelope_path, body=envelope(complete), headers=headers
        )
    except GlitchTipError as error:
        refused = error
    else:
        return event_id
    if refused.status != 403:
        raise refused
    raise GlitchTipError(
        refused.method,
        refused.path,
        403,
        "dsn_refused",
        f"the DSN is refused ({refused.detail or 'Denied'})",
        "wrong key or project, or a wrong key was used here in the last 30 s: wait 31 s",
    )


def await_event(
    client: Client,
    organization: str,
    project: str,
    event_id: str,
    timeout: float = 30,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait until an event can be read by its id and return it.

    Args:
        timeout: seconds in all; it is asked every half second, and once more at the end.
        clock, sleep: injected by tests.

    Raises GlitchTipError with code `not_stored` when time runs out, the server's refusal (401, 403) at once.
    """
    deadline = clock() + timeout
    trouble = ""
    while True:
        try:
            event = client.events.get(organization, project, event_id)
            trouble = ""
        except GlitchTipError as error:
            if error.status is not None and error.status < 500:
                raise
            event, trouble = None, str(error)
        if event is not None:
            return event
        remaining = deadline - clock()
        if remaining <= 0:
            break
        sleep(min(POLL_SECONDS, remaining))
    raise GlitchTipError(
        code="not_stored",
        detail=f"event {event_id} was accepted but is not in {organization}/{project} after {timeout:g} s",
        hint=trouble or "the worker is not processing, or the DSN belongs to another project",
    )

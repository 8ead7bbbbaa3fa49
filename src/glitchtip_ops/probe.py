"""A test event sent with the product's DSN and read back by its id: proof that the pipeline works."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from glitchtip_api import Client, GlitchTipError, parse_dsn
from glitchtip_api.ingest import await_event, send_event

from .settings import Settings


@dataclass(frozen=True)
class Probe:
    """What became of one test event; ``seconds`` from sending to reading back, ``error`` when it was not."""

    event_id: str
    captured: bool
    seconds: float
    error: str | None


def send_probe(
    settings: Settings,
    purpose: str,
    *,
    timeout: float = 30.0,
    monotonic: Callable[[], float] = time.monotonic,
) -> Probe:
    """Send one event of level ``info`` and wait until the API shows it.

    A tracker in trouble is no exception: the Probe says so.
    All probes of one ``purpose`` (``soak``, ``monitor``) form one issue (own fingerprint).
    """
    event_id = uuid.uuid4().hex
    event = {
        "event_id": event_id,
        "level": "info",
        "message": f"glitchtip-ops probe: {purpose}",
        "fingerprint": ["glitchtip-ops", "probe", purpose],
        "tags": {"service": "glitchtip-ops", "probe": purpose},
    }
    began = monotonic()
    try:
        send_event(parse_dsn(settings.dsn), event)
        with Client(settings.url, settings.token, open_after=None) as client:  # it is to wait, not to give up
            await_event(client, settings.organization, settings.project, event_id, timeout=timeout)
    except GlitchTipError as error:
        return Probe(event_id, False, round(monotonic() - began, 3), str(error))
    return Probe(event_id, True, round(monotonic() - began, 3), None)

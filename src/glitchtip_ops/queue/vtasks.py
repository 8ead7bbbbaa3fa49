"""The 6.x line's queue: its keys, and its entries, which may be compressed.

Everything here is from the source of django-vtasks 3.1.0 and of GlitchTip 6.x; it was not run against them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..docker_stack import Container, Stack
from ..process import OpsError
from .messages import COMPRESSED, Message, parse_vtask

KEYS = {"failed": "{vt}:q:failed", "default": "{vt}:q:default", "ingest": "{vt}:q:ingest"}
#: The library's own VTASKS_CONCURRENCY, and events in one batch.
CONCURRENCY = 20
BATCH = 100

#: Runs in GlitchTip's own container, which has what the entries were compressed with. Reads hexadecimal lines,
#: prints a JSON line each, without the payload but for the event's id.
_DECODE = """
import json, sys
try:
    from compression.zstd import decompress
except ImportError:
    try:
        from pyzstd import decompress
    except ImportError:
        from zstandard import ZstdDecompressor
        decompress = lambda data: ZstdDecompressor().decompressobj().decompress(data)
for line in sys.stdin:
    try:
        task = json.loads(decompress(bytes.fromhex(line.strip())[5:]))
        first = (task.get("args") or [None])[0]
        first = first if isinstance(first, dict) else {}
        payload = first.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        kept = {name: task[name] for name in ("func", "queue", "ts", "error_msg") if name in task}
        kept["error_msg"] = str(kept["error_msg"])[:60] if "error_msg" in kept else None
        if kept["error_msg"] is None:
            del kept["error_msg"]
        inner = {name: payload[name] for name in ("event_id", "type") if name in payload}
        kept["args"] = [{"received": first.get("received"), "payload": inner}]
        print(json.dumps(kept))
    except Exception:
        print("null")
"""


def parse_entries(
    stack: Stack, containers: Sequence[Container], entries: Sequence[bytes], *, whole: bool = False
) -> list[Message | None]:
    """Each entry as a Message; None for one that cannot be read.

    Compressed entries are read in the first of ``containers``, GlitchTip's own; without one they stay unread.
    ``whole``: raise OpsError when they cannot be read at all, rather than take each for an unreadable one.
    """
    documents: list[Any] = [None if each.startswith(COMPRESSED) else _plain(each) for each in entries]
    packed = [place for place, each in enumerate(entries) if each.startswith(COMPRESSED)]
    if packed and containers:
        lines = "".join(f"{entries[place].hex()}\n" for place in packed)
        try:
            answers = stack.execute(containers[0], ["python", "-c", _DECODE], stdin=lines).splitlines()
        except OpsError:
            if whole:
                raise
            answers = []
        if whole and len(answers) != len(packed):
            raise OpsError(
                f"{containers[0].name} read {len(answers)} of {len(packed)} compressed entries: run it again once "
                "that container is healthy"
            )
        for place, answer in zip(packed, answers, strict=False):
            documents[place] = _plain(answer.encode())
    return [parse_vtask(document) for document in documents]


def _plain(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None

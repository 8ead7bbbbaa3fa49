"""Read the sample product's ledger: which errors it captured, and which of them the tracker acknowledged.

The product writes one JSON line before an event is handed to its SDK and one after the tracker has
answered (`src/lib/ledger.js`). `python ledger.py [FILE]` prints the counts.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

DEFAULT_PATH = Path("/var/lib/ai-admin/ledger.jsonl")


class LedgerError(ValueError):
    """The ledger cannot be read, or a complete line of it is not what the product writes."""


@dataclass(frozen=True)
class Entry:
    """One line: `state` is captured, acknowledged or refused; `status` and `host` are None where unknown."""

    at: datetime
    service: str
    event_id: str
    state: str
    status: int | None = None
    host: str | None = None


@dataclass
class Ledger:
    """All entries by event id. A refused event may be acknowledged later; the acknowledgement then counts."""

    captured: dict[str, Entry] = field(default_factory=dict)
    acknowledged: dict[str, Entry] = field(default_factory=dict)
    refused: dict[str, Entry] = field(default_factory=dict)

    @property
    def unanswered(self) -> set[str]:
        """Ids that were captured and have no answer yet: still on their way, or their process ended."""
        return self.captured.keys() - self.acknowledged.keys() - self.refused.keys()

    def acknowledged_by(self, host: str) -> set[str]:
        """Ids that the tracker at `host` (the host name of the DSN, without its port) acknowledged."""
        return {event_id for event_id, entry in self.acknowledged.items() if entry.host == host}

    def services(self) -> dict[str, int]:
        """Number of captured events of each service."""
        return dict(Counter(entry.service for entry in self.captured.values()))


def _parse(lines: Iterable[str], name: str) -> Iterator[Entry]:
    for number, line in enumerate(lines, start=1):
        try:
            data = json.loads(line)
            yield Entry(
                at=datetime.fromisoformat(data["at"]),
                service=data["service"],
                event_id=data["event_id"],
                state=data["state"],
                status=data.get("status"),
                host=data.get("host"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{name} line {number} is not a ledger entry: {error!r}") from None


def parse_ledger(text: str, name: str = "ledger") -> Ledger:
    """Read the ledger from its text.

    A last line without its newline is one that is being written and is left out.

    Raises:
        LedgerError: a complete line is not a ledger entry, or an id was captured twice.
    """
    complete = text[: text.rfind("\n") + 1]
    ledger = Ledger()
    for entry in _parse(complete.splitlines(), name):
        if entry.state == "captured":
            if entry.event_id in ledger.captured:
                raise LedgerError(f"{name}: event {entry.event_id} was captured twice")
            ledger.captured[entry.event_id] = entry
        elif entry.state == "acknowledged":
            ledger.acknowledged[entry.event_id] = entry
            ledger.refused.pop(entry.event_id, None)
        elif entry.state == "refused":
            if entry.event_id not in ledger.acknowledged:
                ledger.refused[entry.event_id] = entry
        else:
            raise LedgerError(f"{name}: unknown state {entry.state!r} of event {entry.event_id}")
    return ledger


def read_ledger(path: Path | str = DEFAULT_PATH) -> Ledger:
    """Read the ledger file; a missing file is an error, because it would count as "nothing was lost".

    Raises:
        LedgerError: the file cannot be read or holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path} cannot be read: {error}") from None
    return parse_ledger(text, str(path))


def main(argv: list[str]) -> int:
    """Print the counts as JSON."""
    try:
        ledger = read_ledger(*argv[1:2])
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 1
    counts = {
        "captured": len(ledger.captured),
        "acknowledged": len(ledger.acknowledged),
        "refused": len(ledger.refused),
        "unanswered": len(ledger.unanswered),
        "services": ledger.services(),
        "hosts": dict(Counter(entry.host or "" for entry in ledger.acknowledged.values())),
    }
    print(json.dumps(counts, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

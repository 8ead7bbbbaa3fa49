"""The version of a server, and what it means for what the client may ask of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .errors import InvalidError, VersionError

OLDEST = "5.0"
NEWEST_TESTED = (6, 2)
#: Lines (major, minor) whose real server was walked from phase 0 to phase 5. roles/glitchtip/vars has the same.
WALKED_LINES = ((5, 2),)
#: Versions that must not be run, with what is wrong with them.
BROKEN = {"4.2.0": "upstream calls it broken: it accepts events and throws them away"}

_NUMBERS = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")

Line = Literal["5.2", "6.x"]


@dataclass(frozen=True)
class ServerVersion:
    """What ``/api/settings/`` says: `text` as it came; `numbers` is None when that tells nothing.

    A server that was not started from a released image says ``0.0.0-unknown`` (measured on both lines'
    source), others leave it empty.
    """

    text: str
    numbers: tuple[int, int, int] | None

    @classmethod
    def parse(cls, text: str) -> ServerVersion:
        """The version in a text such as ``6.2.6``, ``v6.0.3`` or ``6.2``."""
        found = _NUMBERS.match(text.strip())
        numbers = (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None
        return cls(text.strip(), numbers if numbers and numbers[0] > 0 else None)

    @property
    def line(self) -> Line:
        """``6.x`` from 6.0 on, else ``5.2``; an unknown version, too: `Client.line` finds out more."""
        return "6.x" if self.numbers and self.numbers >= (6, 0, 0) else "5.2"

    @property
    def walked(self) -> bool | None:
        """Whether a real server of its line was walked; None for an unknown version."""
        return None if self.numbers is None else self.numbers[:2] in WALKED_LINES

    def at_least(self, wanted: str) -> bool:
        """False only when the version is known and older than `wanted`, e.g. ``6.0.7``."""
        return self.numbers is None or self.numbers >= _wanted(wanted)

    def require(self, minimum: str = OLDEST) -> str | None:
        """Refuse a server that is too old. Returns a sentence of warning for one that is newer than tested.

        An unknown version is neither refused nor warned of. Raises VersionError (code `too_old`).
        """
        if self.numbers is None:
            return None
        plain = ".".join(map(str, self.numbers))
        known = BROKEN.get(plain)
        if known or not self.at_least(minimum):
            why = known or f"this needs {minimum} or newer"
            raise VersionError(
                "GET",
                "/api/settings/",
                None,
                "too_old",
                f"the server is GlitchTip {plain}: {why}",
                "upgrade it (from 3.x by way of 4.x)" if self.numbers[0] < 4 else "upgrade it",
            )
        if self.numbers[0] > NEWEST_TESTED[0]:
            return f"the server is GlitchTip {plain}; this was tested up to {NEWEST_TESTED[0]}.{NEWEST_TESTED[1]}"
        return None


def _wanted(text: str) -> tuple[int, int, int]:
    found = _NUMBERS.fullmatch(text)
    if not found:
        raise InvalidError(code="bad_version", detail=f"{text!r} is no version such as 6.0 or 6.0.7")
    return int(found[1]), int(found[2]), int(found[3] or 0)

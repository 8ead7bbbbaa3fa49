"""Where the switch of the services stands on this host, for people: what the interpreter of its journal says, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glitchtip_core.switch import GLITCHTIP, JOURNAL, MIRROR, read_switch
from glitchtip_core.text import one_line
from glitchtip_core.transaction.state import State

from .parity.window import iso
from .process import OpsError

_LONGEST = 300


@dataclass(frozen=True)
class Cutover:
    """What the journal of the switch says. ``confirmed`` in epoch seconds, None unless GlitchTip is in effect.

    ``overrides``: services that are, or may be, back on their original tracker alone.
    """

    confirmed: float | None
    value: str
    overrides: tuple[str, ...] = ()


def told(state: State) -> Cutover:
    """The state in words."""
    when = "an unknown time" if state.phase_at is None else iso(state.phase_at)
    in_effect = state.stands == GLITCHTIP and state.phase in ("confirmed", "rolled_back")
    confirmed = state.confirmed_at if in_effect else None
    kept = ", to the GlitchTip of before" if confirmed is not None else ", to the mirror" if state.stands == MIRROR else ""
    values = {
        "none": "never applied",
        "applying": f"the switch to {state.target} of {when} is not finished",
        "applied": f"applied at {when}, not confirmed",
        "confirmed": f"{state.target} confirmed at {when}",
        "rolling_back": f"a rollback of {when} is not finished",
        "rolled_back": f"rolled back at {when}{kept}",
    }
    return Cutover(confirmed, values[state.phase], state.parts_back)


def read_cutover(directory: Path) -> Cutover:
    """Where the switch stands whose files are in ``directory``; they are root's. What cannot be read is said, never raised."""
    path = directory / JOURNAL
    try:
        path.stat()
        return told(read_switch(directory))
    except FileNotFoundError:
        return Cutover(None, f"{path} is not there: no switch was ever applied on this host")
    except PermissionError:
        return Cutover(None, f"{path} is for root only; run this as root")
    except OpsError as error:
        if isinstance(error.__cause__, PermissionError):
            return Cutover(None, f"{path} is for root only; run this as root")
        return Cutover(None, one_line(error)[:_LONGEST])
    except OSError as error:
        return Cutover(None, f"{path} cannot be read: {error.strerror}")

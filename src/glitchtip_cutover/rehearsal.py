"""Before anything is changed: could each service be proven afterwards? Probes run, and send nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .config import Config
from .errors import CutoverError, InterruptedRunError, UnprovenServiceError
from .host import Host
from .manager import Process
from .services import of

ACCEPT = (
    "set its own instrument file if it has one, have it report an event by itself, or accept it by its name in "
    "accept_unproven (ai_admin_cutover_accept_unproven)"
)


def rehearse(
    config: Config, host: Host, listed: Sequence[Process], talking: Collection[str]
) -> tuple[list[str], list[str]]:
    """Problems and notes. Services that are expected to be heard themselves need no probe, accepted ones no proof."""
    problems: list[str] = []
    notes: list[str] = []
    for name in config.services:
        instances = of(listed, name)
        if not instances or name in talking:
            continue
        host.progress(f"checking how {name} can be proven")
        try:
            host.prober.rehearse(instances[0])
        except InterruptedRunError:
            raise
        except UnprovenServiceError as error:
            if name in config.accept_unproven:
                notes.append(f"{error}; accepted by its name")
            else:
                problems.append(f"{error}; {ACCEPT}")
        except CutoverError as error:
            notes.append(f"whether {name} can be proven was not seen: {error}")
    return problems, notes

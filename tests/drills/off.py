"""Protections switched off, for the negative controls. They change the installed copy on the drill server alone."""

from __future__ import annotations

from collections.abc import Callable

from rig.shell import RigError

from drills import lite
from drills.lite import Lite

_PATCH = """
import sys, zipfile
path, module, code = sys.argv[1:4]
with zipfile.ZipFile(path) as old:
    members = {name: old.read(name) for name in old.namelist()}
name = f"{module}.py" if "/" in module else f"glitchtip_cutover/{module}.py"
members[name] += code.encode()
with open(path, "rb") as file:
    first = file.readline()
with open(path, "wb") as file:
    file.write(first)
with zipfile.ZipFile(path, "a") as new:
    for member, data in members.items():
        new.writestr(member, data)
"""


def patched(module: str, attribute: str, code: str, command: str = lite.PROGRAM) -> Callable[[Lite], None]:
    """The installed program with ``code`` at the end of one module; one of another package is given with it (``glitchtip_core/http``).

    ``attribute`` must exist there, or it would be no control. ``command``: which of the installed copies.
    """

    def off(world: Lite) -> None:
        check = f"\nassert callable({attribute})\n{code}\n"
        path = world.root(f"readlink -f /usr/local/sbin/{command}").out
        world.write("/root/patch.py", _PATCH)
        done = world.root(f'python3 /root/patch.py {path} {module} "$(cat)"', input_text=check, check=False)
        if done.code:
            raise RigError(f"The protection in {module} cannot be switched off: {done.err[-300:]}")
        if command == lite.PROGRAM and world.program("status --json").code:
            raise RigError(f"The program does not run with {attribute} switched off.")

    return off


def together(*protections: Callable[[Lite], None]) -> Callable[[Lite], None]:
    """Several of them, where each alone finds the fault."""

    def off(world: Lite) -> None:
        for protection in protections:
            protection(world)

    return off


def shell(command: str) -> Callable[[Lite], None]:
    """A command on the server."""

    def off(world: Lite) -> None:
        world.root(command)

    return off

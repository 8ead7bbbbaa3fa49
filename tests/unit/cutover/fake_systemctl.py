"""``systemctl`` for tests, run as a program. Units stand in ``$FAKE_UNITS/units.json``; drop-ins are read as systemd does.

It keeps to what systemd documents (systemctl(1), systemd.service(5)): ``show`` prints blocks of ``Name=value`` separated by an empty
line, words of ``Environment`` quoted where they need it; a unit that is not installed has ``LoadState=not-found``;
``restart`` sets ``NRestarts`` to 0 and gives a new process; a drop-in counts after ``daemon-reload``, the file that
it names at each start.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_UNITS"])


def environment(unit: dict[str, Any]) -> dict[str, str]:
    """What a process of the unit gets."""
    found = dict(unit["environment"])
    for path in unit["files"]:
        for line in Path(path).read_text().splitlines() if Path(path).is_file() else []:
            name, _, value = line.partition("=")
            found[name] = value.strip('"')
    return found


def show(names: list[str], units: dict[str, Any]) -> None:
    blocks = []
    for name in names:
        unit = units.get(name)
        if unit is None:
            blocks.append(f"Id={name}\nLoadState=not-found\nActiveState=inactive\nMainPID=0\nNRestarts=0")
            continue
        words = " ".join(
            f'"{key}={value}"' if " " in value else f"{key}={value}"
            for key, value in unit["environment"].items()
        )
        drop_ins = " ".join(str(part) for part in sorted((HOME / f"{name}.d").glob("*.conf")))
        files = f"FragmentPath={HOME / name}\nDropInPaths={drop_ins}\n"
        files += "".join(f"EnvironmentFiles={path} (ignore_errors=yes)\n" for path in unit["files"])
        blocks.append(
            f"Type={unit.get('type', 'simple')}\nId={name}\nLoadState=loaded\nActiveState={unit['active']}\n"
            f"SubState=running\nMainPID={unit['pid']}\nNRestarts={unit['restarts']}\nEnvironment={words}\n{files}"
            f"ExecMainStartTimestampMonotonic={unit['began']}\nWorkingDirectory={unit['cwd']}\nUser={unit['user']}\n"
            f"TriggeredBy={unit.get('timer', '')}\n"
            f"ExecStart={{ path=/usr/bin/node ; argv[]=/usr/bin/node {'--watch ' if name.startswith('other') else ''}"
            "--import ./a.mjs src/x.js ; ignore_errors=no ; }"
        )
    print("\n\n".join(blocks))


def main(arguments: list[str]) -> int:
    store = HOME / "units.json"
    units = json.loads(store.read_text())
    with (HOME / "calls.log").open("a") as log:
        log.write(" ".join(arguments) + "\n")
    names = [word for word in arguments[1:] if not word.startswith("-")]
    if arguments[0] == "is-system-running":
        print((HOME / "state").read_text().strip())
        return 0
    if arguments[0] == "show":
        show(names, units)
        return 0
    if arguments[0] == "daemon-reload":
        for name, unit in units.items():
            unit["files"] = list(unit["own_files"])
            for part in sorted((HOME / f"{name}.d").glob("*.conf")):
                unit["files"] += re.findall(r"^EnvironmentFile=-?(.*)$", part.read_text(), re.MULTILINE)
    if arguments[0] == "restart":
        for name in names:
            if name not in units:
                return 5
            unit = units[name]
            unit.update(
                pid=unit["pid"] + 1000, restarts=0, active="active", began=int(time.monotonic() * 1e6)
            )
            unit["loaded"] = environment(unit).get("SENTRY_DSN")
            if unit.get("dies"):
                unit.update(active="failed", pid=0)
    store.write_text(json.dumps(units))
    return 1 if arguments[0] == "restart" and any(units[name]["active"] == "failed" for name in names) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

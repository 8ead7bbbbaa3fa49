"""Run phase playbooks against the throwaway server, as an operator would, and collect what each took."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig import world
from rig.shell import ROOT, RigError

PHASES = [
    "phase0_prepare",
    "phase1_local_test",
    "phase2_deploy",
    "phase3_parallel_run",
    "phase4_cutover",
    "phase5_operate",
]
EVIDENCE = "/var/lib/glitchtip-migration/demo"


#: What a playbook's environment needs for Mitogen (strategy_plugins/fast.py): runs after the first, which goes as an operator's.
FAST = {
    "ANSIBLE_STRATEGY": "fast",
    "ANSIBLE_STRATEGY_PLUGINS": str(Path(__file__).parent / "strategy_plugins"),
    # Mitogen does not read it from the inventory's SSH options; the servers' keys are new each time.
    "ANSIBLE_HOST_KEY_CHECKING": "False",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
}


@dataclass(frozen=True)
class Run:
    """One playbook run: exit code, seconds, number of tasks that ran, names of those that changed, all it printed."""

    name: str
    code: int
    seconds: float
    tasks: int
    changed: tuple[str, ...]
    output: str


def playbook(
    name: str,
    *,
    check: bool = False,
    extra: tuple[str, ...] = (),
    quiet: bool = False,
    fast: bool = False,
    server: world.Server = world.MAIN,
) -> Run:
    """Run ``playbooks/<name>.yml``; RigError when it fails. Arguments as in :func:`attempt`."""
    run = attempt(name, check=check, extra=extra, quiet=quiet, fast=fast, server=server)
    if run.code:
        if quiet:
            print("\n".join(run.output.splitlines()[-25:]), flush=True)
        raise RigError(
            f"playbooks/{name}.yml{' --check' if check else ''} ended with exit code {run.code} (see the lines above)."
        )
    return run


def attempt(
    name: str,
    *,
    check: bool = False,
    extra: tuple[str, ...] = (),
    quiet: bool = False,
    fast: bool = False,
    server: world.Server = world.MAIN,
) -> Run:
    """Run ``playbooks/<name>.yml`` to its end, good or bad.

    ``check`` adds ``--check --diff``; with ``quiet`` the lines are only collected; ``fast`` runs it with Mitogen; ``server`` says
    which inventory.
    """
    totals = server.directory / f"totals-{name}.json"
    totals.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_LIBRARY": str(ROOT / "library"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
        "ANSIBLE_STDOUT_CALLBACK": "lines",
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
        "RIG_LABEL": name.split("_")[0],
        "RIG_TOTALS": str(totals),
        "PYTHONUNBUFFERED": "1",
        **({"RIG_DIFF": "1"} if check else {}),
        **(FAST if fast else {}),
    }
    argv = [
        str(ROOT / ".venv/bin/ansible-playbook"),
        "-i",
        str(server.inventory),
        f"playbooks/{name}.yml",
        *extra,
        *(["--check", "--diff"] if check else []),
    ]
    started = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or []:
            lines.append(line)
            if not quiet:
                print(line, end="", flush=True)
    counted: dict[str, Any] = {"tasks": 0, "changed_tasks": []}
    if totals.exists():
        counted = json.loads(totals.read_text())
    elif not process.returncode:
        raise RigError(f"playbooks/{name}.yml ended well without its totals: what changed is not known.")
    seconds = round(time.monotonic() - started, 1)
    return Run(
        name, process.returncode, seconds, counted["tasks"], tuple(counted["changed_tasks"]), "".join(lines)
    )


def evidence(phase: str, server: world.Server = world.MAIN) -> dict[str, object]:
    """What a phase recorded on the server (``{"proof": sentence, ...}``)."""
    _, text = world.ssh(f"cat {EVIDENCE}/{phase}.json", server=server)
    document: dict[str, object] = json.loads(text)
    data = document.get("data", document)
    if not isinstance(data, dict):
        raise RigError(f"{EVIDENCE}/{phase}.json on the server holds no data.")
    return data

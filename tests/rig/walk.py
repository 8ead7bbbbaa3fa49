"""Run phase playbooks against the throwaway server, as an operator would, and collect what each took."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Run:
    """One playbook run: seconds, number of tasks that ran, names of the tasks that changed something, and all it printed."""

    name: str
    seconds: float
    tasks: int
    changed: tuple[str, ...]
    output: str


def playbook(name: str, *, check: bool = False, extra: tuple[str, ...] = (), quiet: bool = False) -> Run:
    """Run ``playbooks/<name>.yml``; RigError when it fails.

    ``check`` adds ``--check --diff``; with ``quiet`` the lines are only collected.
    """
    totals = world.DEMO / f"totals-{name}.json"
    totals.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "lines",
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
        "RIG_LABEL": name.split("_")[0],
        "RIG_TOTALS": str(totals),
        "PYTHONUNBUFFERED": "1",
        **({"RIG_DIFF": "1"} if check else {}),
    }
    argv = [
        str(ROOT / ".venv/bin/ansible-playbook"),
        "-i",
        str(world.INVENTORY),
        f"playbooks/{name}.yml",
        *extra,
    ]
    started = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        argv + (["--check", "--diff"] if check else []),
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
    seconds = time.monotonic() - started
    output = "".join(lines)
    if process.returncode:
        if quiet:
            print("".join(lines[-25:]), end="", flush=True)
        raise RigError(
            f"playbooks/{name}.yml{' --check' if check else ''} ended with exit code {process.returncode} (see the lines above)."
        )
    counted = json.loads(totals.read_text())
    return Run(name, round(seconds, 1), counted["tasks"], tuple(counted["changed_tasks"]), output)


def evidence(phase: str) -> dict[str, object]:
    """What a phase recorded on the server (``{"proof": sentence, ...}``)."""
    _, text = world.ssh(f"cat {EVIDENCE}/{phase}.json")
    document: dict[str, object] = json.loads(text)
    data = document.get("data", document)
    if not isinstance(data, dict):
        raise RigError(f"{EVIDENCE}/{phase}.json on the server holds no data.")
    return data

"""The tasks of phases 1 and 2 that decide about the image, run by Ansible with a docker that knows images from a file.

Every host of one run has an image of its own and a situation of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables
from unit.glitchtip.conftest import PROGRAM, Engine

ONE, TWO = ("sha256:" + digit * 64 for digit in "12")
PLAY = """
- hosts: all
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {{name: local_test, tasks_from: previous}}
    - ansible.builtin.copy:
        content: "{{{{ local_test_passed_before | to_json }}}}"
        dest: "{root}/{{{{ inventory_hostname }}}}.passed"
        mode: "0600"
      check_mode: false
    - ansible.builtin.import_tasks: {tasks}
    - name: Gives the defaults of the role, as in phase 2
      ansible.builtin.import_role: {{name: glitchtip, tasks_from: remove}}
      when: false
    - ansible.builtin.copy:
        content: "{{{{ __glitchtip_tested_digest | to_json }}}}"
        dest: "{root}/{{{{ inventory_hostname }}}}.tested"
        mode: "0600"
"""


@dataclass(frozen=True)
class Situation:
    """The digest that phase 1 tested, that of the image on the host and that of the record, each empty for none; phase 2's version."""

    tested: str
    present: str
    recorded: str = ""
    version: str = "6.2.6"
    passed: bool = True
    refusal: list[str] = field(default_factory=list)


SITUATIONS = {
    "same": Situation(ONE, ONE),
    "absent": Situation(ONE, ""),
    "unnamed": Situation("", ONE),
    "moved": Situation(
        ONE, TWO, passed=False, refusal=[f"with the digest {ONE}, and that name is {TWO} on this host now."]
    ),
    "newer": Situation(
        ONE,
        ONE,
        version="6.2.7",
        refusal=[
            "Phase 1 tested the image r.example.org/newer:6.2.6, and this phase would deploy r.example.org/newer:6.2.7."
        ],
    ),
    "deployed": Situation(ONE, TWO, recorded=TWO, passed=False),
}


def image(host: str, version: str = "6.2.6") -> str:
    return f"r.example.org/{host}:{version}"


class Bed:
    """The hosts' directories and what one run of the tasks printed."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root = root
        (root / "engine").mkdir()
        program = root / "engine/docker"
        program.write_text(PROGRAM.format(python=sys.executable, root=str(root / "engine")))
        program.chmod(0o755)
        self.engine = Engine(root / "engine")  # type: ignore[no-untyped-call]
        local = {
            image(host): {"Id": at.present, "RepoDigests": [f"r.example.org/{host}@{at.present}"]}
            for host, at in SITUATIONS.items()
            if at.present
        }
        self.engine.set(local=local)  # type: ignore[no-untyped-call]
        (root / "host_vars").mkdir()
        for host, at in SITUATIONS.items():
            self._write(host, at)
        (root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": dict.fromkeys(SITUATIONS)}}))
        (root / "play.yml").write_text(
            PLAY.format(tasks=ROOT / "playbooks/tasks/tested_image.yml", root=root)
        )
        variables = ansible_variables(ANSIBLE_ROLES_PATH=str(ROOT / "roles"))
        done = subprocess.run(
            [ANSIBLE_PLAYBOOK, "-i", root / "hosts.yml", root / "play.yml", *options],
            env={**variables, "PATH": f"{root / 'engine'}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.code, self.printed = done.returncode, " ".join((done.stdout + done.stderr).split())

    def _write(self, host: str, at: Situation) -> None:
        directory = self.root / host
        directory.mkdir()
        scripts = [(ROOT / f"roles/local_test/files/scenarios.{kind}").read_bytes() for kind in ("cjs", "py")]
        report = {
            "passed": True,
            "image": image(host),
            "image_digest": at.tested,
            "scenarios_sha256": hashlib.sha256(b"".join(scripts)).hexdigest(),
            "asked": {"sdks": ["node", "python"], "bursts": [100, 1000], "uptime": True},
        }
        (directory / "local_test.json").write_text(json.dumps(report))
        (directory / "stack").mkdir()
        if at.recorded:
            record = {"glitchtip": {"reference": image(host), "digest": at.recorded}}
            (directory / "stack/deployed.json").write_text(json.dumps(record))
        variables = {
            "ansible_python_interpreter": sys.executable,
            "migration_id": "m",
            "local_test_state_dir": str(directory),
            "local_test_reference": image(host),
            "gate": {"evidence": {"phase1": {"image": image(host), "digest": at.tested}}},
            "glitchtip_dir": str(directory / "stack"),
            "glitchtip_image": f"r.example.org/{host}",
            "glitchtip_version": at.version,
        }
        (self.root / "host_vars" / f"{host}.yml").write_text(yaml.safe_dump(variables))

    def said(self, host: str, kind: str) -> Any:
        path = self.root / f"{host}.{kind}"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    return Bed(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("host", SITUATIONS)
def test_an_earlier_test_counts_for_the_image_that_was_tested(bed: Bed, host: str) -> None:
    assert bed.said(host, "passed") is SITUATIONS[host].passed, bed.printed


@pytest.mark.parametrize("host", SITUATIONS)
def test_phase_2_goes_on_with_that_image_alone(bed: Bed, host: str) -> None:
    at = SITUATIONS[host]
    expected = None if at.refusal else "" if at.recorded else at.tested
    assert bed.said(host, "tested") == expected, bed.printed
    for sentence in at.refusal:
        assert f"{sentence} Nothing was changed on {host}. Run playbooks/phase1_local_test.yml" in bed.printed


def test_nothing_is_pulled_or_written(bed: Bed) -> None:
    assert bed.code == 2
    assert bed.engine.pulls == []
    written = {host: [path.name for path in (bed.root / host / "stack").iterdir()] for host in SITUATIONS}
    assert written == {host: ["deployed.json"] if at.recorded else [] for host, at in SITUATIONS.items()}


def test_check_mode_reports_what_would_be_refused(tmp_path: Path) -> None:
    bed = Bed(tmp_path, "--check")
    assert bed.code == 0, bed.printed
    for host, at in SITUATIONS.items():
        for sentence in at.refusal:
            assert f"{sentence} This phase would stop here." in bed.printed, host

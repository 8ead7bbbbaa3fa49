"""Role parallel_run: check mode on a host where nothing is yet, and the units that it writes, read by their own programs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables

TEMPLATES = ("glitchtip-soak.service", "glitchtip-soak.timer", "glitchtip-mirror.service", "logrotate")


def play(
    tmp_path: Path, tasks: list, *arguments: str, hosts: Mapping[str, dict] | None = None, callback: str = "default", **variables
) -> subprocess.CompletedProcess[str]:
    """Run tasks on this machine as if it were a host with systemd, or several with variables of their own."""
    facts = {"ansible.builtin.set_fact": {"service_mgr": "systemd", "cacheable": True}}
    document = [{"hosts": "servers", "gather_facts": False, "tasks": [facts, *tasks]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(document))
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    local = {"ansible_connection": "local", "ansible_python_interpreter": python}
    inventory = {"servers": {"hosts": {name: {**local, **own} for name, own in (hosts or {"bare": {}}).items()}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    return subprocess.run(
        [
            str(ANSIBLE_PLAYBOOK),
            "-i",
            str(tmp_path / "hosts.yml"),
            "-e",
            json.dumps({"migration_id": "bare", **variables}),
            *arguments,
            str(tmp_path / "play.yml"),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=ROOT,
        env=ansible_variables(
            ANSIBLE_ROLES_PATH=str(ROOT / "roles"), ANSIBLE_CACHE_PLUGIN="memory", ANSIBLE_NOCOLOR="1", ANSIBLE_STDOUT_CALLBACK=callback
        ),
    )


def role(**more) -> dict:
    return {"ansible.builtin.include_role": {"name": "parallel_run", **more}}


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    return paths(tmp_path)


def paths(tmp_path: Path) -> dict[str, str]:
    """Paths of a host where nothing was installed."""
    return {
        "parallel_run_command": str(tmp_path / "none/glitchtip-ops"),
        "parallel_run_config_dir": str(tmp_path / "none/etc"),
        "ai_admin_cutover_program": str(tmp_path / "none/ai-admin-cutover.pyz"),
        "ai_admin_cutover_config_dir": str(tmp_path / "none/cutover"),
        "ai_admin_cutover_link": str(tmp_path / "none/link"),
        "ai_admin_cutover_break_glass": str(tmp_path / "none/glass"),
        "ai_admin_cutover_state_root": str(tmp_path / "none/state"),
    }


@pytest.mark.parametrize("mode", ["probe", "mirror"])
def test_check_mode_on_a_bare_host_shows_what_would_be_done_and_does_nothing(tmp_path, bare, mode):
    done = play(tmp_path, [role()], "--check", parallel_run_mode=mode, **bare)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"a parallel run of 48h in mode {mode} would be started" in re.sub(r"\s+", " ", done.stdout)
    assert not (tmp_path / "none").exists()
    assert not Path("/etc/glitchtip-mirror").exists()
    assert not Path("/etc/systemd/system/glitchtip-mirror.service").exists()


def test_without_the_operator_tools_nothing_is_begun_and_the_sentence_names_the_phase(tmp_path, bare):
    done = play(tmp_path, [role()], **bare)
    assert done.returncode != 0
    assert "run playbooks/phase2_deploy.yml first" in re.sub(r"\s+", " ", done.stdout + done.stderr)


#: Each is given to a host of its own.
SENSELESS = (
    {"parallel_run_duration": "two days"},
    {"parallel_run_interval": "5s"},
    {"parallel_run_name": "After Cutover"},
    {"parallel_run_mode": "both"},
)


@pytest.fixture(scope="module")
def refused(tmp_path_factory) -> dict[str, Any]:
    """What one run of the role printed, in which each host has other variables, and ``good`` has sensible ones."""
    directory = tmp_path_factory.mktemp("senseless")
    hosts = {f"given{number}": given for number, given in enumerate(SENSELESS)} | {"good": {}}
    done = play(directory, [role()], hosts=hosts, **paths(directory), callback="json")
    return json.loads(done.stdout[done.stdout.index("{") :])


@pytest.mark.parametrize("number", range(len(SENSELESS)), ids=[f"given{number}" for number in range(len(SENSELESS))])
def test_variables_that_make_no_sense_are_refused_before_anything_is_looked_at(refused, number):
    tasks = refused["plays"][0]["tasks"]
    looked = {host for task in tasks if "Look for the operator tools" in task["task"]["name"] for host in task["hosts"]}
    assert "good" in looked
    assert f"given{number}" not in looked
    assert refused["stats"][f"given{number}"]["failures"] == 1


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> dict[str, str]:
    """The templates as the role writes them, sampled each 10 s."""
    target = tmp_path_factory.mktemp("rendered")
    write = [
        {
            "ansible.builtin.template": {
                "src": str(ROOT / f"roles/parallel_run/templates/{name}.j2"),
                "dest": str(target / name),
                "mode": "0644",
            }
        }
        for name in TEMPLATES
    ]
    loaded = [
        {"ansible.builtin.include_vars": {"file": str(ROOT / "roles/parallel_run/defaults/main.yml")}},
        {"ansible.builtin.include_vars": {"file": str(ROOT / "roles/parallel_run/vars/main.yml")}},
        {
            "ansible.builtin.set_fact": {
                "__parallel_run_nginx_version": {"stderr": "nginx version: nginx/1.18.0 (Ubuntu)"}
            }
        },
    ]
    done = play(
        target,
        [*loaded, *write],
        parallel_run_interval="10s",
        parallel_run_state_dir=str(target / "state"),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return {name: (target / name).read_text() for name in TEMPLATES} | {"target": str(target)}


def test_samples_are_taken_as_often_as_was_asked_for(rendered):
    assert "OnUnitActiveSec=10s\n" in rendered["glitchtip-soak.timer"]
    assert "AccuracySec=1s\n" in rendered["glitchtip-soak.timer"]


def test_an_old_nginx_is_not_given_an_option_that_it_does_not_know(rendered):
    assert (
        "ExecStart=/usr/sbin/nginx -c /etc/glitchtip-mirror/nginx.conf\n"
        in rendered["glitchtip-mirror.service"]
    )


@pytest.mark.parametrize(
    ("files", "runs"),
    [
        ([], False),
        (["m1/plan.json"], True),
        (["m1/plan.json", "m1/verdict.json"], False),
        (["m1/plan.json", "m1/verdict.json", "m1/soak-after-cutover/plan.json"], True),
        (
            [
                "m1/plan.json",
                "m1/verdict.json",
                "m1/soak-after-cutover/plan.json",
                "m1/soak-after-cutover/verdict.json",
            ],
            False,
        ),
    ],
)
def test_the_sampler_is_started_only_while_a_run_is_open(rendered, files, runs):
    state = Path(rendered["target"]) / "state"
    shutil.rmtree(state, ignore_errors=True)
    for name in files:
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).touch()
    condition = re.search(
        r"^ExecCondition=/bin/sh -c '(.*)'$", rendered["glitchtip-soak.service"], re.MULTILINE
    )
    assert condition
    script = condition[1].replace("$$", "$").replace("%%", "%")  # as systemd unescapes it
    assert (subprocess.run(["/bin/sh", "-c", script]).returncode == 0) is runs


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "logrotate"])
def test_systemd_understands_the_units(rendered, name):
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(Path(rendered["target"]) / name)],
        capture_output=True,
        text=True,
    )
    told = [line for line in done.stderr.splitlines() if name in line and "is not executable" not in line]
    assert told == []

"""The order in which the role brings a server up: what a real GlitchTip does while it has no user must not be reachable."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

TASKS = Path(__file__).resolve().parents[3] / "roles/glitchtip/tasks"


def steps(name):
    """Tasks of a file in the order in which they run, blocks and imports unfolded."""
    found = []
    for task in yaml.safe_load((TASKS / name).read_text(encoding="utf-8")):
        imported = task.get("ansible.builtin.import_tasks")
        if imported:
            found += steps(imported)
        elif "block" in task:
            found += [step for inner in task["block"] for step in _unfolded(inner)]
        else:
            found.append(task)
    return found


def _unfolded(task):
    imported = task.get("ansible.builtin.import_tasks")
    return steps(imported) if imported else [task]


def position(found, *, module, holds="", services="any"):
    for number, task in enumerate(found):
        arguments = task.get(module)
        if arguments is None or holds not in str(arguments):
            continue
        if services == "all" and "services" in arguments:
            continue
        return number
    raise AssertionError(f"no task {module} with {holds!r}")


def test_the_superuser_exists_before_the_web_server_is_started_for_the_first_time():
    found = steps("main.yml")
    migrated = position(found, module="ansible.builtin.command", holds="__glitchtip_migrate_command")
    created = position(found, module="ansible.builtin.command", holds="createsuperuser")
    started = position(found, module="community.docker.docker_compose_v2", services="all")
    judged = position(found, module="ansible.builtin.assert", holds="enableUserRegistration")
    assert migrated < created < started < judged


def test_the_worker_is_stopped_before_a_changed_database_is_started():
    found = steps("main.yml")
    stopped = position(found, module="ansible.builtin.command", holds="'stop'")
    databases = position(found, module="community.docker.docker_compose_v2", holds="'postgres'")
    assert stopped < databases


def test_a_run_that_ended_before_the_start_is_noticed_by_the_next_one():
    """Its Compose file is written and not a change any more; the worker must be stopped all the same."""
    found = steps("main.yml")
    asked = position(found, module="ansible.builtin.command", holds="sha1sum --check --status .started")
    stopped = position(found, module="ansible.builtin.command", holds="'stop'")
    started = position(found, module="community.docker.docker_compose_v2", services="all")
    remembered = position(found, module="ansible.builtin.copy", holds=".started")
    forgotten = position(found, module="ansible.builtin.file", holds="/.started")
    assert asked < forgotten < stopped < started < remembered
    # A change that failed half-way and is taken back: the file is that of the last start, the containers are not.
    assert found[forgotten]["when"] == found[stopped]["when"]
    assert f"{found[asked]['register']}.rc != 0" in found[stopped]["when"]


def test_what_holds_the_worker_is_stopped_and_started_again_in_every_process_model():
    """All in one, the web service holds it; there is no service ``worker`` then."""
    block = next(task for task in yaml.safe_load((TASKS / "configure.yml").read_text()) if "rescue" in task)
    found = {
        action: task
        for task in [*block["block"], *block["rescue"]]
        for action in ("stop", "start")
        if action in task.get("ansible.builtin.command", {}).get("argv", [])
    }
    for action in ("stop", "start"):
        assert found[action]["ansible.builtin.command"]["argv"][-1] == "{{ __glitchtip_worker_service }}"
        assert "worker'" not in str(found[action]["when"])
    # In the rescue nothing may wait without end, or the reason is never reported.
    assert found["start"]["ansible.builtin.command"]["argv"][0] == "timeout"


def test_marks_of_a_database_that_is_gone_are_removed_before_anything_reads_them():
    """Else a run that fails half-way through a new database leaves marks that make the next one skip migrations and superuser."""
    tasks = yaml.safe_load((TASKS / "configure.yml").read_text(encoding="utf-8"))
    removal = tasks[0]
    assert removal["ansible.builtin.file"]["state"] == "absent"
    assert removal["when"] == "__glitchtip_database_is_new | bool"
    written = {
        name
        for path in TASKS.glob("*.yml")
        for task in steps(path.name)
        for name in re.findall(r"/([.]\w+)$", task.get("ansible.builtin.copy", {}).get("dest", ""))
    }
    assert {".migrated", ".migrating", ".superuser"} <= written
    assert set(removal["loop"]) == written


def test_phase_1_begins_with_an_empty_staging_stack():
    """What a failed run left, perhaps of another version, must neither be refused nor kept."""
    play = yaml.safe_load((TASKS.parents[2] / "playbooks/phase1_local_test.yml").read_text(encoding="utf-8"))[
        0
    ]
    block = next(task["block"] for task in play["tasks"] if "block" in task)
    removal, stack = block[0], block[1]
    assert removal["ansible.builtin.include_role"] == {"name": "glitchtip", "tasks_from": "remove"}
    assert removal["vars"]["__glitchtip_remove_events"] is True
    assert stack["ansible.builtin.include_role"] == {"name": "glitchtip"}
    compared = next(task for task in steps("install.yml") if "data_versions" in task)
    assert "__glitchtip_staging" in compared["when"]


def removals(name):
    """Tasks of a playbook that remove a stack with its data whatever was asked for, with all tasks before each."""
    found, seen = [], []
    for play in yaml.safe_load((TASKS.parents[2] / "playbooks" / name).read_text(encoding="utf-8")):
        for task in play.get("tasks", []):
            for step in task.get("block", [task]):
                role = (
                    step.get("ansible.builtin.include_role") or step.get("ansible.builtin.import_role") or {}
                )
                unasked = step.get("vars", {}).get("__glitchtip_remove_events") is True
                if role.get("tasks_from") == "remove" and unasked:
                    found.append((step, list(seen)))
                seen.append(step)
    return found


def test_only_the_staging_stack_loses_its_data_unasked():
    """A variable of the command line wins over those of a play or a task: the directory in use must not get there."""
    phase_1, uninstall = removals("phase1_local_test.yml"), removals("uninstall.yml")
    assert (len(phase_1), len(uninstall)) == (2, 1)
    staging = {"name": "local_test", "tasks_from": "staging"}
    for _, before in phase_1:
        assert any(task.get("ansible.builtin.import_role") == staging for task in before)
    (guard,) = yaml.safe_load((TASKS.parents[1] / "local_test/tasks/staging.yml").read_text(encoding="utf-8"))
    assert set(guard["ansible.builtin.assert"]["that"]) >= {
        "glitchtip_project_name == local_test_compose_project",
        "glitchtip_dir == local_test_stack_dir",
        "local_test_compose_project != __local_test_in_use.glitchtip_project_name | default('glitchtip')",
        "local_test_stack_dir | normpath != __local_test_in_use.glitchtip_dir | default('/opt/glitchtip') | normpath",
    }
    assert uninstall[0][0]["when"] == "glitchtip_dir == local_test_stack_dir | default('/opt/glitchtip-staging')"

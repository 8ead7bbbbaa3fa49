"""The order in which the role brings a server up: what a real GlitchTip does while it has no user must not be reachable."""

from __future__ import annotations

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

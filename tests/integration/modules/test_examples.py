"""The EXAMPLES of every module, run as they stand against a server: once by Ansible itself, the rest in this process."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys

import pytest
import yaml
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables
from module_examples import MODULES, ONLY_6, SECRETS, run_tasks, tasks

#: What a repeated run may send: a probe is an event, and tokens are looked at by a session.
NO_CHANGE = re.compile(r"POST /api/\d+/envelope/ |(POST|DELETE) /_allauth/browser/v1/auth/(login|session) ")
#: What every module may return besides what its RETURN tells.
COMMON = {"changed", "failed", "warnings", "diff"}


def emptied(server):
    """Remove all organizations: the examples are about everything that is there."""
    for organization in server.client.organizations.list():
        server.client.organizations.delete(organization["slug"])


def variables(server):
    """What the examples take from a vault."""
    return {
        "server_url": server.url,
        "glitchtip_token": server.token,
        "glitchtip_admin_password": server.password,
    }


def changed(results):
    """Names of the examples that changed something."""
    return [name for name, (_, result) in results.items() if result["changed"]]


def assert_documented(results):
    """What was returned is in RETURN, each key of an object in its sample."""
    for name, (module, result) in results.items():
        documented = yaml.safe_load(importlib.import_module(module).RETURN)
        assert result.keys() - COMMON <= documented.keys(), name
        for key, value in result.items():
            sample = documented.get(key, {}).get("sample")
            if isinstance(value, dict) and isinstance(sample, dict):
                assert value.keys() == sample.keys(), (name, key)
            elif (
                isinstance(value, list) and value and isinstance(sample, list) and isinstance(sample[0], dict)
            ):
                assert value[0].keys() == sample[0].keys(), (name, key)


def test_check_do_check_do_again(run_module, standin):
    server = standin("5.2")
    emptied(server)

    def run(*, check):
        before = len(server.writes())
        results = run_tasks(run_module, variables(server), check=check, without=ONLY_6)
        assert_documented(results)
        return changed(results), server.writes()[before:]

    foreseen, written = run(check=True)
    assert written == []
    done, written = run(check=False)
    # in check mode the examples at the end do not see what those before them would have made
    assert set(done) <= set(foreseen)
    assert len(done) >= 12
    assert len(written) >= len(done)
    known, written = run(check=True)
    assert written == []
    assert known == ["Token of the operator tools"], "without `current` it would log in to know more"
    again, written = run(check=False)
    assert again == []
    assert [write for write in written if not NO_CHANGE.match(write)] == []
    assert [write for write in written if "/envelope/" in write], "the probe is sent each time"


@pytest.fixture(scope="module")
def played(standin, tmp_path_factory):
    """ansible-playbook over all examples against the newer line: the server, and what it printed."""
    server = standin("6.2")
    emptied(server)
    directory = tmp_path_factory.mktemp("examples")
    given = directory / "given.yml"
    given.touch(0o600)
    given.write_text(
        json.dumps({**variables(server), **SECRETS, "ansible_python_interpreter": sys.executable})
    )
    play = {"name": "Examples", "hosts": "localhost", "gather_facts": False, "tasks": list(tasks())}
    book = directory / "examples.yml"
    book.write_text(json.dumps([play], indent=1))
    command = [str(ANSIBLE_PLAYBOOK), "-i", "localhost,", "-c", "local"]
    done = subprocess.run(
        [*command, str(book), "-e", f"@{given}", "--diff"],
        cwd=ROOT,
        env=ansible_variables(ANSIBLE_NOCOLOR="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return server, done.stdout + done.stderr


def test_ansible_runs_every_example_and_prints_no_secret(played):
    server, printed = played
    told = re.findall(r"^(ok|changed|skipping|fatal): ", printed, re.MULTILINE)
    assert len(told) == len(list(tasks()))
    assert told.count("changed") >= 13
    for secret in ("canary", server.token, server.password):
        assert secret not in printed


def test_after_ansible_nothing_is_left_to_change(run_module, played):
    server, _ = played
    for check in (True, False):
        before = len(server.writes())
        results = run_tasks(run_module, variables(server), check=check)
        assert_documented(results)
        assert changed(results) == (["Token of the operator tools"] if check else [])
        written = server.writes()[before:]
        assert [write for write in written if check or not NO_CHANGE.match(write)] == []


def test_two_examples_have_two_names():
    names = [task["name"] for task in tasks()]
    assert len(names) == len(set(names))
    assert set(names) >= ONLY_6
    assert set(MODULES) <= {key for task in tasks() for key in task}

"""The stack's secrets are made once, on the host, for their owner only, never printed, and the superuser's is in no backup."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles/glitchtip"
PROGRAM = ROLE / "files/generate_secrets.py"
FORMS = {"SECRET_KEY": r"[0-9a-f]{64}", "POSTGRES_PASSWORD": r"[0-9a-f]{32}"}
PASSWORD = r"[A-Za-z0-9_-]{32}"


def generate(directory):
    return subprocess.run(
        [sys.executable, PROGRAM, directory / ".env", directory / ".superuser-password"],
        capture_output=True,
        text=True,
        check=False,
        umask=0o000,
        timeout=20,
    )


def test_they_have_the_right_form_and_only_their_owner_reads_them(tmp_path):
    done = generate(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "changed\n", "")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    found = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    assert set(found) == set(FORMS)
    assert all(re.fullmatch(FORMS[name], value) for name, value in found.items())
    assert re.fullmatch(PASSWORD, (tmp_path / ".superuser-password").read_text().strip())


def test_two_hosts_share_none(tmp_path):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        generate(tmp_path / name)
        found.append({line for path in (tmp_path / name).iterdir() for line in path.read_text().splitlines()})
    assert len(found[0]) == len(found[1]) == 3
    assert not found[0] & found[1]


def test_a_repeat_changes_nothing(tmp_path):
    generate(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = generate(tmp_path)
    assert (again.returncode, again.stdout) == (0, "")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", [".env", ".superuser-password"])
def test_a_file_that_exists_is_kept_and_the_other_one_made(tmp_path, name):
    (tmp_path / name).write_text("SECRET_KEY=mine\n")
    assert generate(tmp_path).stdout == "changed\n"
    assert (tmp_path / name).read_text() == "SECRET_KEY=mine\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_part_of_an_interrupted_run_does_no_harm(tmp_path):
    for name in (".env.part", ".superuser-password.part"):
        (tmp_path / name).write_text("SECRET_")
    assert generate(tmp_path).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {".env", ".superuser-password"}


OLD = "SECRET_KEY=a\nPOSTGRES_PASSWORD=b\nSUPERUSER_PASSWORD=c-d_e\nEMAIL_URL='smtp://x'\n"


@pytest.mark.parametrize("known", [None, "c-d_e\n"], ids=["first run", "after an interrupted one"])
def test_the_superusers_password_of_an_earlier_version_leaves_the_environment_file(tmp_path, known):
    (tmp_path / ".env").write_text(OLD)
    if known:
        (tmp_path / ".superuser-password").write_text(known)
    assert generate(tmp_path).stdout == "changed\n"
    assert (tmp_path / ".superuser-password").read_text() == "c-d_e\n"
    assert (tmp_path / ".env").read_text() == OLD.replace("SUPERUSER_PASSWORD=c-d_e\n", "")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert generate(tmp_path).stdout == ""


def test_two_different_passwords_are_refused_and_both_kept(tmp_path):
    (tmp_path / ".env").write_text(OLD)
    (tmp_path / ".superuser-password").write_text("other\n")
    done = generate(tmp_path)
    assert done.returncode != 0
    assert "differs from the password in" in done.stderr
    assert not {"c-d_e", "other"} & set(re.findall(r"[\w-]+", done.stderr))
    assert ((tmp_path / ".env").read_text(), (tmp_path / ".superuser-password").read_text()) == (
        OLD,
        "other\n",
    )


def secret_places(tasks):
    """Names of tasks that put the superuser's password where a list of processes or ``docker inspect`` shows it."""
    found = []
    for task in tasks:
        command = task.get("ansible.builtin.command", "")
        argv = command.get("argv") if isinstance(command, dict) else command
        if "__glitchtip_superuser_password" in str(
            [task.get("environment"), argv]
        ) or "DJANGO_SUPERUSER_PASSWORD" in str(task.get("environment")):
            found.append(task["name"])
    return found


def test_no_task_hands_the_password_over_in_arguments_or_environment():
    """Ansible writes ``environment`` into the command line of a shell, which every user of the host can read."""
    tasks = yaml.safe_load((ROLE / "tasks/superuser.yml").read_text())
    create = next(task for task in tasks if "ansible.builtin.command" in task)
    assert create["ansible.builtin.command"]["stdin"] == "{{ __glitchtip_superuser_password }}"
    assert create["no_log"] is True
    for path in sorted((ROLE / "tasks").glob("*.yml")):
        assert secret_places(yaml.safe_load(path.read_text())) == [], path.name
    control = dict(create, environment={"DJANGO_SUPERUSER_PASSWORD": "{{ __glitchtip_superuser_password }}"})
    assert secret_places([control]) == [create["name"]]


def test_the_shell_hands_exactly_the_password_to_the_command(tmp_path):
    """With what a password may hold; an empty one would make a superuser without a password."""
    tasks = yaml.safe_load((ROLE / "tasks/superuser.yml").read_text())
    argv = next(
        task["ansible.builtin.command"]["argv"] for task in tasks if "ansible.builtin.command" in task
    )
    manage = tmp_path / "manage.py"
    manage.write_text('#!/bin/sh\nprintf "%s|" "$DJANGO_SUPERUSER_PASSWORD" "$@"\n')
    manage.chmod(0o755)
    command = [*argv[argv.index("web") + 1 : -1], "admin@example.org"]

    def run(given):
        return subprocess.run(command, input=given, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run("  a\\b $HOME 'c'").stdout == ""  # without its line end nothing was read whole
    password = "  a\\b $HOME 'c' "
    assert run(password + "\n").stdout == f"{password}|createsuperuser|--noinput|--email=admin@example.org|"
    assert run("\n").returncode != 0

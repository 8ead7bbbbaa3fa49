"""Images are compared with the data on the volumes before anything is changed: a stack that cannot start on its own data is refused."""

from __future__ import annotations

import json
import os
import sys
from itertools import product

import data_versions as subject
import pytest

DIGEST = "@sha256:" + "a" * 64


class World:
    """A fake engine: volumes are directories below ``root``; ``images`` are local images and their environment; ``running`` services."""

    def __init__(self, root):
        self.root = root
        self.directory = root / "project"
        self.directory.mkdir()
        (self.directory / ".env").write_text("POSTGRES_PASSWORD=x\n")
        self.images, self.programs, self.running = {}, {}, set()
        self.queue = {"celery": 0, "unacked": 0}
        self.broken = ""
        self.calls = []

    def docker(self, words):
        self.calls.append(" ".join(words))
        if self.broken and self.calls[-1].startswith(self.broken):
            return None
        if words[:2] == ["volume", "ls"]:
            name = words[-1].removeprefix("name=^").removesuffix("$").replace("\\", "")
            return f"{name}\n" if (self.root / name).is_dir() else ""
        if words[:2] == ["volume", "inspect"]:
            return f"{self.root / words[-1]}\n"
        if words[:2] == ["image", "inspect"]:
            return None if words[-1] not in self.images else json.dumps(self.images[words[-1]])
        if words[0] == "run":
            return self.programs.get(words[-2])
        if words[0] == "ps":
            service = words[-1].rpartition("=")[2]
            return f"{service}-id\n" if service in self.running else ""
        if words[0] == "exec":
            return f"{self.queue[words[-1]]}\n"
        raise AssertionError(words)

    def postgres(self, version, inside="pgdata"):
        place = self.root / "glitchtip_postgres" / inside
        place.mkdir(parents=True)
        (place / "PG_VERSION").write_text(f"{version}\n")

    def valkey(self, head, name="appendonlydir/appendonly.aof.1.base.rdb"):
        place = self.root / "glitchtip_valkey" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(head)

    def migrated(self, version, mark=".migrated", digest=DIGEST):
        (self.directory / mark).write_text(f"registry.example.org:5000/glitchtip:{version}{digest}\n")

    def compare(self, version="5.2.0", postgres="postgres:17", valkey="valkey/valkey:8"):
        host = subject.Host(self.docker, "glitchtip")
        options = {"directory": str(self.directory), "version": version}
        return subject.compare(host, {**options, "postgres_image": postgres, "valkey_image": valkey})

    def refusal(self, **options):
        with pytest.raises(subject.DataError) as refused:
            self.compare(**options)
        return str(refused.value)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def rdb(magic="REDIS0011", name="valkey-ver", writer="8.1.1"):
    """The first bytes of a data file as Valkey writes it."""
    fields = b"".join(
        b"\xfa" + bytes([len(key)]) + key.encode() + bytes([len(value)]) + value.encode()
        for key, value in ((name, writer), ("redis-bits", "@"))
    )
    return magic.encode() + fields + b"\xfe\x00"


def test_a_host_without_data_is_not_compared(world):
    assert world.compare() == {
        "changed": False,
        "data": {"postgres": "", "valkey": "", "glitchtip": ""},
        "unknown": [],
    }


@pytest.mark.parametrize("version", ["17", "17.2", "17.2-bookworm", "17-alpine"])
def test_the_same_postgresql_is_accepted_by_its_tag(world, version):
    world.postgres("17")
    assert world.compare(postgres=f"postgres:{version}{DIGEST}")["data"]["postgres"] == "17"


@pytest.mark.parametrize(
    ("data", "wanted"), [pair for pair in product(["15", "16", "17", "18"], repeat=2) if pair[0] != pair[1]]
)
@pytest.mark.parametrize("where", ["tag", "environment", "program"])
@pytest.mark.parametrize("inside", ["pgdata", "."])
def test_every_other_major_of_postgresql_is_refused(world, data, wanted, where, inside):
    world.postgres(data, inside)
    reference = f"postgres:{wanted}" if where == "tag" else "registry.example.org:5000/db:stable"
    if where == "environment":
        world.images[reference] = ["PATH=/bin", f"PG_MAJOR={wanted}", f"PG_VERSION={wanted}.2-1"]
    if where == "program":
        world.images[reference] = None
        world.programs[reference] = f"postgres (PostgreSQL) {wanted}.2 (Debian {wanted}.2-1)\n"
    said = world.refusal(postgres=reference)
    assert f"has data of PostgreSQL {data}, which PostgreSQL {wanted} ({reference}) cannot read" in said
    assert f"Set glitchtip_postgres_image to an image of PostgreSQL {data}" in said
    assert "uninstall" not in said


def test_an_image_that_is_not_here_and_has_no_version_in_its_tag_is_asked_about_again(world):
    world.postgres("17")
    assert world.compare(postgres="registry.example.org/db:stable")["unknown"] == ["postgres"]


@pytest.mark.parametrize(
    ("head", "wanted", "readable"),
    [
        (rdb(), "8", True),
        (rdb(), "7.2", True),
        (rdb(), "9.0", True),
        (rdb("REDIS0009", "redis-ver", "6.2.7"), "8.1", True),
        (rdb("VALKEY080", writer="9.0.1"), "9", True),
        (rdb("VALKEY080", writer="9.0.1"), "8", False),
        (rdb("VALKEY080", writer="9.0.1"), "8.1.4", False),
        (rdb("REDIS0012", "redis-ver", "7.4.0"), "8", False),
        (b"no data file", "8", True),
        (b"", "8", True),
    ],
)
@pytest.mark.parametrize("name", ["appendonlydir/appendonly.aof.3.base.rdb", "dump.rdb"])
def test_a_valkey_that_cannot_read_the_queue_is_refused(world, head, wanted, readable, name):
    world.valkey(head, name)
    if readable:
        assert world.compare(valkey=f"valkey/valkey:{wanted}")["unknown"] == []
    else:
        said = world.refusal(valkey=f"valkey/valkey:{wanted}")
        assert f"which Valkey {wanted} (valkey/valkey:{wanted}) cannot read" in said
        assert "Set glitchtip_valkey_image to version" in said


@pytest.mark.parametrize(
    ("ran", "wanted"),
    [("5.2.0", "5.1.9"), ("6.2.6", "6.2.5"), ("6.2.6", "v5.2.0"), ("6.10.0", "6.9.3"), ("v6.2.6", "6.1.7")],
)
@pytest.mark.parametrize("mark", [".migrated", ".migrating"])
def test_an_older_glitchtip_is_refused_also_after_migrations_that_did_not_end(world, ran, wanted, mark):
    world.postgres("17")
    world.migrated(ran, mark)
    said = world.refusal(version=wanted)
    assert ran.removeprefix("v") in said
    assert ("in part" in said) == (mark == ".migrating")
    assert "migrations go forward only" in said


@pytest.mark.parametrize(
    ("ran", "wanted"),
    [("5.2.0", "5.2.0"), ("5.2.0", "5.10.1"), ("v6.2.6", "6.2.6"), ("6.2.6", "6.3.0"), ("latest", "5.2.0")],
)
def test_the_same_and_newer_ones_are_accepted(world, ran, wanted):
    world.postgres("17")
    world.migrated(ran, digest="")
    world.compare(version=wanted)


def test_after_the_volume_is_gone_its_marks_refuse_nothing(world):
    world.migrated("6.2.6")
    world.compare(version="5.2.0")


@pytest.mark.parametrize(
    ("running", "queue", "words"),
    [
        ({"web", "valkey", "worker"}, 0, "0 events wait, and the web server still accepts more"),
        ({"web", "valkey", "worker"}, 7, "7 events wait, and the web"),
        ({"valkey", "worker"}, 7, "7 events wait. Run"),
        (set(), 0, "Valkey does not answer. Run"),
    ],
)
@pytest.mark.parametrize("key", ["celery", "unacked"])
def test_the_step_to_6_needs_a_queue_that_is_empty_and_stays_so(world, running, queue, words, key):
    world.postgres("17")
    world.migrated("5.2.0")
    world.running, world.queue[key] = running, queue
    said = world.refusal(version="6.2.6")
    assert f"GlitchTip 6.2.6 never reads the queue of 5.2.0: {words}" in said
    assert f"docker compose --project-directory {world.directory} stop web" in said
    world.compare(version="5.3.0")


def test_the_step_to_6_is_taken_when_the_queue_is_drained(world):
    world.postgres("17")
    world.migrated("5.2.0")
    world.running = {"valkey", "worker"}
    assert world.compare(version="6.2.6")["data"]["glitchtip"] == "5.2.0"


def test_a_database_whose_password_is_lost_is_refused(world):
    world.postgres("17")
    (world.directory / ".env").unlink()
    assert "Restore" in world.refusal()


def test_all_reasons_are_given_at_once(world):
    world.postgres("16")
    world.migrated("6.2.6")
    world.valkey(rdb("VALKEY080", writer="9.0.1"))
    said = world.refusal()
    assert said.index("PostgreSQL:") < said.index("Valkey:") < said.index("GlitchTip:")


@pytest.mark.parametrize("broken", ["volume ls", "volume inspect", "ps"])
def test_an_engine_that_does_not_answer_is_no_empty_host(world, broken):
    world.postgres("17")
    world.migrated("5.2.0")
    world.broken = broken
    assert f"`docker {broken}" in world.refusal(version="6.2.6")


def test_nothing_is_asked_that_changes_something(world):
    world.postgres("17")
    world.valkey(rdb())
    world.images = {"postgres:17": None, "valkey/valkey:8": None}
    world.compare()
    reading = ("volume ls", "volume inspect", "image inspect", "ps", "exec", "run --rm --network none")
    assert all(call.startswith(reading) for call in world.calls)


# --- the module, with a program on PATH --------------------------------------------------------------------------------


def test_the_module_refuses_and_says_that_nothing_was_changed(run_module, world, tmp_path, monkeypatch):
    world.postgres("16")
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nwords = sys.argv[1:]\n"
        "if words[:2] == ['volume', 'ls']:\n    print('x' if words[-1].endswith('postgres$') else '')\n"
        f"elif words[:2] == ['volume', 'inspect']:\n    print({str(tmp_path / 'glitchtip_postgres')!r})\n"
        "else:\n    sys.exit(1)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    options = {"project": "glitchtip", "directory": str(world.directory), "version": "5.2.0"}
    images = {"postgres_image": "postgres:17", "valkey_image": "valkey/valkey:8"}
    refused = run_module("data_versions", **options, **images)
    assert refused["failed"]
    assert "cannot read" in refused["msg"]
    assert refused["msg"].endswith("Nothing was changed; what runs keeps running.")
    assert run_module("data_versions", **options, **{**images, "postgres_image": "postgres:16"})["data"] == {
        "postgres": "16",
        "valkey": "",
        "glitchtip": "",
    }

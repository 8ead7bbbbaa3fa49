"""What the image says: files of a fake image, read by a fake docker; absent or strange ones give "unknown"."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from glitchtip_api.version import ServerVersion
from glitchtip_ops.local_test import command
from glitchtip_ops.local_test.image_facts import UNKNOWN, facts_for, facts_of, judge, read_files
from glitchtip_ops.local_test.report import image_rows
from glitchtip_ops.process import OpsError

#: Runs the program of `docker run ... --entrypoint=sh IMAGE -c PROGRAM` on a directory that stands for the image.
DOCKER = """#!{python}
import os, subprocess, sys, time
root = {root!r}
argv = sys.argv[1:]
with open(os.path.join(root, "calls"), "a") as calls:
    calls.write(repr(argv) + "\\n")
if argv[0] == "rm":
    sys.exit(0)
behaviour = open(os.path.join(root, "behaviour")).read()
if behaviour == "hangs":
    time.sleep(60)
if behaviour == "fails":
    sys.exit("Unable to find image 'glitchtip:9' locally")
program = argv[-1]
for place in ("/code/", "/usr/local/", "/venv/"):
    program = program.replace(" " + place, " " + root + place)
done = subprocess.run(["sh", "-c", program], capture_output=True, text=True)
sys.stdout.write(done.stdout.replace(root, ""))
"""


class Image:
    """The files of an image, and the docker that shows them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.docker = str(root / "docker")
        Path(self.docker).write_text(DOCKER.format(python=sys.executable, root=str(root)))
        Path(self.docker).chmod(0o755)
        self.behaves("well")

    def behaves(self, how: str) -> None:
        (self.root / "behaviour").write_text(how)

    def write(self, path: str, text: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    @property
    def calls(self) -> str:
        return (self.root / "calls").read_text()


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


SCHEDULER = "/usr/local/lib/python3.14/site-packages/django_vtasks/scheduler.py"
OLD = {
    "/code/glitchtip/settings.py": 'PARTITION_HASH_BUCKETS = env.int("PARTITION_HASH_BUCKETS", 4)\n'
    'GLITCHTIP_ENABLE_LOGS = env.bool("GLITCHTIP_ENABLE_LOGS", True)\n'
    'LIMIT = env.int(\n    "GLITCHTIP_MAX_UNZIPPED_PAYLOAD_SIZE", 5 * 1024 * 1024\n)\n',
    "/code/glitchtip/api/api.py": "api = NinjaAPI(title='GlitchTip API')\n",
    "/code/apps/uptime/tasks.py": 'if result["latest_is_up"] is not None and result["latest_is_up"] != result["is_up"]:\n',
    "/code/apps/event_ingest/authentication.py": "    block_cache_key = EVENT_BLOCK_CACHE_KEY + str(project_id)\n",
    "/code/apps/api_tokens/schema.py": "class APITokenSchema(ModelSchema):\n    token: str\n",
    "/code/bin/run-web.sh": "#!/bin/sh\nexec granian\n",
    "/code/bin/run-worker.sh": "#!/bin/sh\nexec ./manage.py runworker --scheduler\n",
    SCHEDULER: "class Scheduler:\n    async def loop(self): ...\n",
}
NEW = {
    **OLD,
    "/code/glitchtip/settings.py": 'env.int("PARTITION_HASH_BUCKETS", default=2)\n',
    "/code/glitchtip/api/api.py": 'api = NinjaAPI()\nreturn {"detail": "Not found"}\n',
    "/code/apps/uptime/tasks.py": '        if result["latest_is_up"] != result["is_up"]:\n',
    "/code/apps/event_ingest/authentication.py": (
        '    block_cache_key = f"{EVENT_BLOCK_CACHE_KEY}{project_id}:{sentry_key.hex}"\n'
    ),
    "/code/apps/api_tokens/schema.py": 'class APITokenSchema: ...\n        return f"…{token[-8:]}"\n',
    "/code/bin/run-all-in-one.sh": 'export GRANIAN_WORKERS_MAX_RSS="${GRANIAN_WORKERS_MAX_RSS:-400}"\nexec granian\n',
    SCHEDULER: 'logger.exception("Scheduler loop failed")\n',
}
EXPECTED_OLD = {
    "scheduler_survives_errors": "no",
    "tokens_masked": "no",
    "wrong_key_blocks_the_key_only": "no",
    "unknown_path_is_json_404": "no",
    "first_result_reported": "no",
    "hash_buckets": "4",
    "largest_unpacked_event": "5 * 1024 * 1024",
    "logs_stored": "True",
    "scripts": "run-web.sh, run-worker.sh",
    "granian_workers_max_rss": UNKNOWN,
}
EXPECTED_NEW = {
    **dict.fromkeys(list(EXPECTED_OLD)[:5], "yes"),
    "hash_buckets": "2",
    "largest_unpacked_event": UNKNOWN,
    "logs_stored": UNKNOWN,
    "scripts": "run-all-in-one.sh, run-web.sh, run-worker.sh",
    "granian_workers_max_rss": 'export GRANIAN_WORKERS_MAX_RSS="${GRANIAN_WORKERS_MAX_RSS:-400}"',
}


def answers(found: dict) -> dict[str, str]:
    return {fact["name"]: fact["answer"] for fact in found["facts"]}


@pytest.mark.parametrize(
    ("files", "expected"), [(OLD, EXPECTED_OLD), (NEW, EXPECTED_NEW)], ids=["old", "new"]
)
def test_each_point_is_read_from_its_file(
    image: Image, files: dict[str, str], expected: dict[str, str]
) -> None:
    for path, text in files.items():
        image.write(path, text)
    found = facts_of("glitchtip:6", image.docker)
    assert (found["reason"], answers(found)) == ("", expected)
    for fact in found["facts"]:
        assert bool(fact["file"]) == (fact["answer"] != UNKNOWN) or fact["file"] in files, fact


@pytest.mark.parametrize("absent", OLD)
def test_a_file_that_is_absent_leaves_its_points_unknown_and_no_other(image: Image, absent: str) -> None:
    for path, text in OLD.items():
        if path != absent:
            image.write(path, text)
    found = answers(facts_of("glitchtip:6", image.docker))
    differing = {name for name in found if found[name] != EXPECTED_OLD[name]}
    assert differing
    assert all(found[name] == UNKNOWN or name == "scripts" for name in differing)


def test_code_that_is_not_known_gives_no_answer() -> None:
    strange = {path: "import nothing\n" for path in OLD if "/bin/" not in path}
    assert {fact.answer for fact in judge(strange)} == {UNKNOWN}


@pytest.mark.parametrize(
    ("image_name", "behaviour", "reason"),
    [
        ("", "well", "no image was named"),
        ("glitchtip:9", "fails", "Unable to find image"),
        ("glitchtip:9", "hangs", "did not end within"),
    ],
)
@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_unknown_and_fails_nothing(
    image: Image, image_name: str, behaviour: str, reason: str
) -> None:
    image.behaves(behaviour)
    began = time.monotonic()
    found = facts_of(image_name, image.docker, timeout=1.0)
    assert time.monotonic() - began < 10
    assert reason in found["reason"]
    assert set(answers(found).values()) == {UNKNOWN}
    assert ("could not be read", found["reason"], "-") in image_rows({"image_facts": found})


def test_a_container_that_hangs_is_removed_and_a_missing_docker_is_said(image: Image) -> None:
    image.behaves("hangs")
    with pytest.raises(OpsError, match="did not end"):
        read_files("glitchtip:9", image.docker, timeout=0.5)
    assert "'rm', '-f', 'glitchtip-image-facts-" in image.calls
    assert "cannot be run" in facts_of("glitchtip:9", "/nowhere/docker")["reason"]


def test_the_container_has_no_network_and_nothing_is_pulled(image: Image) -> None:
    read_files("glitchtip:6", image.docker)
    for option in (
        "--rm",
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--pull=never",
        "--entrypoint=sh",
    ):
        assert repr(option) in image.calls


def test_a_file_that_holds_the_text_of_another_is_taken_as_it_is(image: Image) -> None:
    image.write("/code/bin/a.sh", "deadbeef /code/glitchtip/settings.py\nPARTITION\n")
    assert list(read_files("glitchtip:6", image.docker)) == ["/code/bin/a.sh"]


def test_the_points_are_told_once_each() -> None:
    names = [fact.name for fact in judge({})]
    assert len(names) == len(set(names)) == len(EXPECTED_OLD)


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        ("5.2.0", False),
        ("5.2.1", False),
        ("6.0.0", True),
        ("6.2.6", True),
        ("", True),
        ("0.0.0-unknown", True),
    ],
)
def test_the_points_of_the_6_line_are_not_asked_of_5_2(image: Image, version: str, asked: bool) -> None:
    found = facts_for(ServerVersion.parse(version), "glitchtip:local", image.docker)
    assert (found is not None) is asked
    assert (image.root / "calls").exists() is asked
    assert bool(image_rows({"image_facts": found})) is asked


def test_the_command_asks_by_the_version_that_the_server_reported() -> None:
    assert command.facts_for is facts_for
    assert not hasattr(command, "facts_of")

"""What the image itself says about points that are open for its line: files are read, nothing of the server is started.

The 6.x line is known here from public copies of its source and from documents, not from a running server; which of that a
given version has, its own files settle. One throwaway container prints them, without network, and every answer names the
file that it was read from. A file that is absent or reads otherwise than expected gives ``unknown``: never a guess, and
never a reason for the test to fail.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from glitchtip_api.version import ServerVersion

from ..process import OpsError, run

UNKNOWN = "unknown"
#: Seconds until the container must have printed its files; the image is there already.
TIMEOUT = 60.0
#: More than that of one image is not read (characters).
LARGEST = 2_000_000
#: What is read below /code and, where the path begins so, in the Python's packages.
FILES = (
    "glitchtip/settings.py",
    "glitchtip/api/api.py",
    "apps/uptime/tasks.py",
    "apps/event_ingest/authentication.py",
    "apps/api_tokens/schema.py",
    "bin/*.sh",
    "PACKAGES/django_vtasks/scheduler.py",
)
#: Where images keep the Python's packages.
_PACKAGES = (
    "/usr/local/lib/python3*/site-packages",
    "/venv/lib/python3*/site-packages",
    "/code/.venv/lib/python3*/site-packages",
)
_LINE = re.compile(
    r"^\s*(?:export\s+)?(?::\s+\"?\$\{)?GRANIAN_WORKERS_MAX_RSS\b.*$|^.*--workers-max-rss.*$", re.MULTILINE
)


@dataclass(frozen=True)
class Fact:
    """One point: what was asked, what the image says (``yes``, ``no``, a value or :data:`UNKNOWN`), and which file."""

    name: str
    question: str
    answer: str
    file: str = ""


Files = Mapping[str, str]
Reader = Callable[[str], str]


def read_files(image: str, docker: str = "docker", timeout: float = TIMEOUT) -> dict[str, str]:
    """The text of :data:`FILES` in an image that is on this machine, by path; those that are absent are left out.

    Raises OpsError when the container cannot be run or does not end in time.
    """
    mark = uuid.uuid4().hex
    places = []
    for name in FILES:
        inside = name.removeprefix("PACKAGES/")
        places += [f"{base}/{inside}" for base in _PACKAGES] if inside != name else [f"/code/{name}"]
    program = (
        f'for f in {" ".join(places)}; do [ -f "$f" ] || continue; echo "{mark} $f"; cat "$f"; echo; done'
    )
    name = f"glitchtip-image-facts-{mark[:12]}"
    confined = [
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--memory=64m",
        "--pids-limit=16",
        "--pull=never",
    ]
    argv = [docker, "run", "--rm", f"--name={name}", *confined, "--entrypoint=sh", image, "-c", program]
    try:
        done = run(argv, timeout=timeout)
    except OpsError:
        run([docker, "rm", "-f", name], timeout=timeout)  # the client ended, the container may not have
        raise
    if done.code:
        raise OpsError(f"The files of the image {image} cannot be read: {done.reason}")
    found: dict[str, str] = {}
    for part in done.stdout[:LARGEST].split(f"{mark} ")[1:]:
        path, _, text = part.partition("\n")
        found[path] = text
    return found


def facts_for(version: ServerVersion, image: str, docker: str = "docker") -> dict[str, Any] | None:
    """:func:`facts_of` for a server of this version; None for the 5.2 line, of which no point is open.

    A server that does not say its version may be of either line, so its image is asked.
    """
    return None if version.numbers and version.line == "5.2" else facts_of(image, docker)


def facts_of(image: str, docker: str = "docker", timeout: float = TIMEOUT) -> dict[str, Any]:
    """The report's part about an image: ``{"reason": why nothing could be read or "", "facts": [...]}``."""
    if not image:
        return {"reason": "no image was named", "facts": [asdict(fact) for fact in judge({})]}
    try:
        files, reason = read_files(image, docker, timeout), ""
    except OpsError as error:
        files, reason = {}, str(error)
    return {"reason": reason, "facts": [asdict(fact) for fact in judge(files)]}


def judge(files: Files) -> list[Fact]:
    """The answers that these files give."""
    return [
        Fact(name, question, *_answer(files, suffix, reader)) for name, question, suffix, reader in _POINTS
    ] + [
        _scripts(files),
        _max_rss(files),
    ]


def _answer(files: Files, suffix: str, reader: Reader) -> tuple[str, str]:
    path = next((path for path in files if path.endswith(suffix)), "")
    return (reader(files[path]), path) if path else (UNKNOWN, "")


def _has(expected: str, otherwise: str) -> Reader:
    """``yes`` where the first pattern is found, ``no`` where only the second is, else unknown: not the code that is known."""

    def read(text: str) -> str:
        if re.search(expected, text):
            return "yes"
        return "no" if re.search(otherwise, text) else UNKNOWN

    return read


def _value(pattern: str) -> Reader:
    """What the pattern's group matches, its spaces made one."""

    def read(text: str) -> str:
        found = re.search(pattern, text)
        return re.sub(r"\s+", " ", found[1]).strip() if found else UNKNOWN

    return read


_POINTS: tuple[tuple[str, str, str, Reader], ...] = (
    (
        "scheduler_survives_errors",
        "does the scheduler go on after an error of Valkey or PostgreSQL (django-vtasks 3.2.0)?",
        "django_vtasks/scheduler.py",
        _has(r"Scheduler loop failed", r"(?:class|def) \w*[Ss]chedul"),
    ),
    (
        "tokens_masked",
        "does the list of API tokens show only their last characters?",
        "apps/api_tokens/schema.py",
        _has(r"token\[-\d+:\]", r"class APITokenSchema"),
    ),
    (
        "wrong_key_blocks_the_key_only",
        "does a wrong DSN key block that key alone, not the whole project for 30 s?",
        "apps/event_ingest/authentication.py",
        _has(
            r"block_cache_key = [^\n]*sentry_key",
            r"block_cache_key = EVENT_BLOCK_CACHE_KEY \+ str\(project_id\)\n",
        ),
    ),
    (
        "unknown_path_is_json_404",
        "do unknown paths of the API answer JSON 404 `Not found`?",
        "glitchtip/api/api.py",
        _has(r"[\"']Not found[\"']", r"NinjaAPI\("),
    ),
    (
        "first_result_reported",
        "is the first result of an uptime monitor reported like a change?",
        "apps/uptime/tasks.py",
        _has(
            r"if result\[\"latest_is_up\"\] != result\[\"is_up\"\]:",
            r"latest_is_up[\"'\])]* is (?:not )?None",
        ),
    ),
    (
        "hash_buckets",
        "how many hash partitions has a period when nothing is set?",
        "glitchtip/settings.py",
        _value(r"env\.int\(\s*[\"']PARTITION_HASH_BUCKETS[\"'],\s*(?:default=)?(\d+)"),
    ),
    (
        "largest_unpacked_event",
        "how many bytes may a body unpack to?",
        "glitchtip/settings.py",
        _value(r"[\"']GLITCHTIP_MAX_UNZIPPED_PAYLOAD_SIZE[\"'],\s*(?:default=)?([\d *_]+)"),
    ),
    (
        "logs_stored",
        "are the logs of SDKs stored when nothing is set?",
        "glitchtip/settings.py",
        _value(r"[\"']GLITCHTIP_ENABLE_LOGS[\"'],\s*(?:default=)?(True|False)"),
    ),
)


def _scripts(files: Files) -> Fact:
    """The scripts that start the parts of the server."""
    names = sorted(path.rpartition("/")[2] for path in files if path.startswith("/code/bin/"))
    question = "which scripts start its parts?"
    return Fact("scripts", question, ", ".join(names) if names else UNKNOWN, "/code/bin" if names else "")


def _max_rss(files: Files) -> Fact:
    """At which memory granian starts its worker anew, as the scripts say it; the worker may then lack the scheduler."""
    question = "at which memory does granian start its worker anew, and does an own value win?"
    found = [
        (path, line.strip())
        for path, text in sorted(files.items())
        if path.startswith("/code/bin/")
        for line in _LINE.findall(text)
    ]
    if not found:
        return Fact("granian_workers_max_rss", question, UNKNOWN)
    return Fact("granian_workers_max_rss", question, "; ".join(line for _, line in found)[:300], found[0][0])

#!/usr/bin/python
"""Compare the data on a stack's volumes with the images that are to run on them, before anything is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: data_versions
short_description: Refuse images that cannot run on the data of a GlitchTip stack
description:
  - Reads which PostgreSQL, Valkey and GlitchTip wrote the data of a Compose project, and compares them with the images and the version
    that are wanted. Changes nothing.
  - Refused are another major version of PostgreSQL, a Valkey that cannot read the queue's file, a GlitchTip older than the one whose
    migrations ran or began, the step from 5.x to 6.x while events wait in the queue of 5.x (6.x never reads it), and a database whose
    password is lost.
  - An image that is not on the host yet is judged by its tag. Where the tag does not name a version, RV(unknown) lists it; pull the image
    and ask again.
options:
  project:
    description: Name of the Compose project.
    type: str
    required: true
  directory:
    description: Directory of the Compose project, with C(.env) and the marks of the migrations.
    type: path
    required: true
  version:
    description: Version of GlitchTip that is wanted.
    type: str
    required: true
  postgres_image:
    description: Image of PostgreSQL that is wanted.
    type: str
    required: true
  valkey_image:
    description: Image of Valkey that is wanted.
    type: str
    required: true
attributes:
  check_mode:
    description: Runs the same, because it only reads.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
author: [The maintainers]
"""

EXAMPLES = r"""
- name: Compare the data with the images
  data_versions:
    project: glitchtip
    directory: /opt/glitchtip
    version: 6.2.6
    postgres_image: postgres:17
    valkey_image: valkey/valkey:8
"""

RETURN = r"""
data:
  description: What wrote the data, C(postgres) (major), C(valkey) (version) and C(glitchtip) (version); empty strings where there is none.
  returned: always
  type: dict
  sample: {postgres: "17", valkey: "8.1.1", glitchtip: "5.2.0"}
unknown:
  description: Names of images whose version could not be determined.
  returned: always
  type: list
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_core.text import printable_module

#: Runs a docker command and returns its standard output, None when it failed or did not end in time.
Docker = Callable[[Sequence[str]], "str | None"]

#: How long one docker command may take, in seconds.
PATIENCE = 60
#: Newest file format that each Valkey reads: up to 8.1 that of Redis 7.2 (11), from 9.0 on its own (80).
_FORMATS = ((9, 80), (0, 11))


class DataError(Exception):
    """One or more sentences for the operator."""


def numbers(version: str) -> tuple[int, ...]:
    """``v6.2.6`` -> (6, 2, 6); () for text that begins with no number."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def tag_of(reference: str) -> str:
    """Tag of an image reference, "" where it has none; a digest is ignored."""
    name = reference.partition("@")[0].rpartition("/")[2]
    return name.partition(":")[2]


def parse_rdb(head: bytes) -> tuple[int, str]:
    """(format, version of the writer) of the first bytes of a Valkey or Redis data file; (0, "") for something else.

    The file begins with REDIS and four digits or VALKEY and three, then fields of 0xFA, name, value, each with its length in a byte.
    """
    magic = re.match(rb"(?:REDIS(\d{4})|VALKEY(\d{3}))", head)
    if magic is None:
        return 0, ""
    writer = re.search(rb"\xfa.(?:redis|valkey)-ver(.)", head, re.DOTALL)
    text = b""
    if writer is not None:
        text = head[writer.end() : writer.end() + writer[1][0]]
    return int(magic[1] or magic[2]), text.decode("ascii", "replace")


def newest_format(version: str) -> int:
    """Newest file format that this Valkey reads."""
    major = numbers(version)[0]
    return next(number for least, number in _FORMATS if major >= least)


class Host:
    """The volumes, images and containers of one Compose project."""

    def __init__(self, docker: Docker, project: str) -> None:
        self.docker = docker
        self.project = project

    def must(self, words: Sequence[str]) -> str:
        """Output of a docker command; DataError when it fails or does not end in time."""
        found = self.docker(words)
        if found is None:
            raise DataError(
                f"`docker {' '.join(words)}` failed or took longer than {PATIENCE} s, so the data cannot be compared. "
                "Check the engine (`systemctl status docker`)."
            )
        return found

    def volume(self, service: str) -> Path | None:
        """Directory of a service's volume on this host; None where there is no volume."""
        name = f"{self.project}_{service}"
        if not self.must(["volume", "ls", "--quiet", "--filter", f"name=^{re.escape(name)}$"]).strip():
            return None
        path = Path(self.must(["volume", "inspect", "--format", "{{.Mountpoint}}", name]).strip())
        if not path.is_dir():
            raise DataError(
                f"The volume {name} is at {path}, which is no directory of this host; its data cannot be compared."
            )
        return path

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers."""
        label = "label=com.docker.compose."
        filters = ["--filter", f"{label}project={self.project}", "--filter", f"{label}service={service}"]
        return self.must(["ps", "--quiet", *filters]).split()

    def image_version(self, reference: str, variables: Sequence[str], program: str) -> str:
        """Version of the program in an image: what the image says of itself, else what the program prints, else the tag; "" if unknown."""
        inspected = self.docker(["image", "inspect", "--format", "{{json .Config.Env}}", reference])
        if inspected is None:
            return ".".join(map(str, numbers(tag_of(reference))))
        environment = dict(entry.partition("=")[::2] for entry in json.loads(inspected) or [])
        for name in variables:
            if numbers(environment.get(name, "")):
                return str(environment[name])
        command = ["run", "--rm", "--network", "none", "--entrypoint", program, reference, "--version"]
        said = re.search(r"\bv?=?(\d+(?:\.\d+)+)", self.docker(command) or "")
        return said[1] if said else ""

    def postgres_data(self) -> str:
        """Major version of the PostgreSQL that made the data; "" where there is none."""
        volume = self.volume("postgres")
        for path in [volume / "pgdata/PG_VERSION", volume / "PG_VERSION"] if volume else []:
            if path.exists():
                return path.read_text(encoding="ascii").strip()
        return ""

    def valkey_data(self) -> tuple[int, str]:
        """(newest file format, version of its writer) of the queue's files; (0, "") where there are none."""
        volume = self.volume("valkey")
        if volume is None:
            return 0, ""
        files = [*sorted((volume / "appendonlydir").glob("*.rdb")), volume / "dump.rdb"]
        found = [(0, "")]
        for path in files:
            if path.exists():
                with path.open("rb") as file:
                    found.append(parse_rdb(file.read(256)))
        return max(found)

    def waiting(self) -> int | None:
        """Events in the queue of the 5.x line, waiting or in hand; None where Valkey does not run or does not answer."""
        running = self.containers("valkey")
        if not running:
            return None
        total = 0
        for words in (["LLEN", "celery"], ["HLEN", "unacked"]):
            said = self.docker(["exec", running[0], "valkey-cli", *words])
            if said is None or not said.strip().isdigit():
                return None
            total += int(said)
        return total


def migrated(directory: Path) -> list[tuple[str, bool]]:
    """(version, finished) of the migrations that ran or began on the database, from the role's marks."""
    found = []
    for name, finished in ((".migrated", True), (".migrating", False)):
        path = directory / name
        version = tag_of(path.read_text(encoding="utf-8").strip()) if path.exists() else ""
        if numbers(version):
            found.append((version.removeprefix("v"), finished))
    return found


def check_postgres(data: str, wanted: str, reference: str, host: Host) -> str:
    """A sentence when the image cannot read the database, else ""."""
    if not data or not wanted or numbers(data)[:1] == numbers(wanted)[:1]:
        return ""
    return (
        f"PostgreSQL: the volume {host.project}_postgres has data of PostgreSQL {data}, which PostgreSQL {numbers(wanted)[0]} "
        f"({reference}) cannot read. Set glitchtip_postgres_image to an image of PostgreSQL {data}; "
        "how to move to another major version is in docs/upgrades.md."
    )


def check_valkey(data: tuple[int, str], wanted: str, reference: str, host: Host) -> str:
    """A sentence when the image cannot read the queue, else ""."""
    if not data[0] or not wanted or data[0] <= newest_format(wanted):
        return ""
    return (
        f"Valkey: the volume {host.project}_valkey has data of version {data[1] or 'unknown'} (file format {data[0]}), "
        f"which Valkey {wanted} ({reference}) cannot read. Set glitchtip_valkey_image to version {data[1] or 'that wrote it'} or newer."
    )


def check_glitchtip(found: Sequence[tuple[str, bool]], wanted: str) -> str:
    """A sentence when the database was migrated for a newer version than the one wanted, else ""."""
    for version, finished in found:
        if numbers(version) > numbers(wanted):
            ran = f"was migrated for {version}" if finished else f"has the migrations of {version} in part"
            return (
                f"GlitchTip: the database {ran}, glitchtip_version is {wanted.removeprefix('v')}; migrations go forward only. "
                f"Set glitchtip_version to {version} or newer; how to return to a backup of an older version is in docs/upgrades.md."
            )
    return ""


def check_queue(found: Sequence[tuple[str, bool]], wanted: str, host: Host, directory: Path) -> str:
    """A sentence when events may wait in the queue of 5.x and the version wanted never reads it, else ""."""
    done = [version for version, finished in found if finished]
    if not done or numbers(done[0])[0] >= 6 or numbers(wanted)[0] < 6:
        return ""
    web, waiting = bool(host.containers("web")), host.waiting()
    if not web and waiting == 0:
        return ""
    compose = f"docker compose --project-directory {directory}"
    state = "Valkey does not answer" if waiting is None else f"{waiting} events wait"
    return (
        f"GlitchTip {wanted.removeprefix('v')} never reads the queue of {done[0]}: {state}"
        f"{', and the web server still accepts more' if web else ''}. Run `{compose} stop web`, keep worker and valkey running "
        f"(`{compose} start valkey worker`) until `{compose} exec valkey valkey-cli llen celery` and `... hlen unacked` both print 0, "
        "then run this phase again. Services lose what they send in between."
    )


def check_secrets(data: str, directory: Path, host: Host) -> str:
    """A sentence when there is a database but the file with its password is gone, else ""."""
    if not data or (directory / ".env").exists():
        return ""
    return (
        f"The volume {host.project}_postgres has a database, but {directory}/.env with its password is missing; new secrets would not open it. "
        f"Restore {directory}/.env from a backup of this host."
    )


def compare(host: Host, options: dict[str, Any]) -> dict[str, Any]:
    """The module's result; DataError with every reason to refuse."""
    directory = Path(options["directory"])
    postgres, valkey, marks = host.postgres_data(), host.valkey_data(), migrated(directory)
    images = {
        "postgres": (options["postgres_image"], ["PG_MAJOR", "PG_VERSION"], "postgres", bool(postgres)),
        "valkey": (options["valkey_image"], ["VALKEY_VERSION"], "valkey-server", bool(valkey[0])),
    }
    wanted = {
        name: host.image_version(reference, variables, program) if asked else ""
        for name, (reference, variables, program, asked) in images.items()
    }
    problems = [
        check_postgres(postgres, wanted["postgres"], options["postgres_image"], host),
        check_valkey(valkey, wanted["valkey"], options["valkey_image"], host),
        check_secrets(postgres, directory, host),
    ]
    if postgres:
        problems.append(check_glitchtip(marks, options["version"]))
        problems.append(check_queue(marks, options["version"], host, directory))
    problems = [problem for problem in problems if problem]
    if problems:
        raise DataError(" ".join(problems))
    return {
        "changed": False,
        "data": {"postgres": postgres, "valkey": valkey[1], "glitchtip": marks[0][0] if marks else ""},
        "unknown": [name for name, (_, _, _, asked) in images.items() if asked and not wanted[name]],
    }


def main() -> None:
    """Entry point of Ansible."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "project": text,
            "directory": {"type": "path", "required": True},
            "version": text,
            "postgres_image": text,
            "valkey_image": text,
        },
        supports_check_mode=True,
    )
    printable_module(module)
    if not numbers(module.params["version"]):
        module.fail_json(msg=f"version must be a version like 6.2.6, not {module.params['version']!r}.")
    if module.get_bin_path("docker") is None:
        module.exit_json(changed=False, data={"postgres": "", "valkey": "", "glitchtip": ""}, unknown=[])
    # Bounded by coreutils, so that an engine that hangs is no endless run.
    bound = [module.get_bin_path("timeout") or "timeout", str(PATIENCE), "docker"]

    def docker(words: Sequence[str]) -> str | None:
        code, out, _ = module.run_command([*bound, *words])
        return None if code else str(out)

    try:
        result = compare(Host(docker, module.params["project"]), module.params)
    except DataError as error:
        module.fail_json(msg=f"{error} Nothing was changed; what runs keeps running.")
    except OSError as error:
        module.fail_json(
            msg=f"The data of the stack cannot be read ({error}); nothing was changed. Run this as root on the engine's host."
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()

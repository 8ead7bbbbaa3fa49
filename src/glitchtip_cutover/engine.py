"""Docker's engine, asked through its command line; and why a call of it failed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glitchtip_core.foreign_files import MODE_BITS, info_of
from glitchtip_core.json_text import decode_json
from glitchtip_core.pm2_list import as_mapping
from glitchtip_core.process import Completed, run, search_path, user_home, user_name

from .errors import CutoverError

#: Seconds that a call may take, unless its caller says otherwise.
CALL_TIMEOUT = 30.0


class Docker:
    """The engine, asked through its command line."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary

    def call(
        self,
        arguments: Sequence[str],
        *,
        timeout: float = CALL_TIMEOUT,
        cwd: Path | str = "/",
        stdin: str = "",
        variables: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Completed:
        """Run ``docker ARGUMENTS`` with a minimal environment, and ``variables`` that it hands on by their names.

        ``user``: as that user, in place of root.
        """
        home = "/root" if user is None else user_home(user)
        own = {"PATH": search_path(), "HOME": home, "LC_ALL": "C.UTF-8"}
        return run(
            [self.binary, *arguments],
            environment={**(variables or {}), **own},
            timeout=timeout,
            cwd=cwd,
            stdin=stdin,
            user=user,
        )

    def answers(self, user: str | None = None) -> bool:
        """Whether the engine answers us, or that ``user``."""
        try:
            return self.call(["version", "--format", "{{.Server.Version}}"], user=user).code == 0
        except CutoverError:
            return False

    def containers(self, project: str) -> list[dict[str, Any]]:
        """What ``docker inspect`` tells of every container of a Compose project, one-off ones left out."""
        listed = self.call(
            ["ps", "--all", "--quiet", "--no-trunc", f"--filter=label=com.docker.compose.project={project}"]
        )
        if listed.code != 0:
            raise CutoverError(f"Docker does not answer: is its service running?{reason_of(listed, ' (', ')')}")
        names = listed.output.split()
        if not names:
            return []
        done = self.call(["inspect", "--type=container", *names])
        try:
            data = decode_json(done.output)
        except ValueError:
            raise CutoverError("docker inspect did not print JSON") from None
        return [
            item
            for item in (data if isinstance(data, list) else [])
            if isinstance(item, dict)
            and as_mapping(as_mapping(item.get("Config")).get("Labels")).get("com.docker.compose.oneoff") != "True"
        ]


def reason_of(done: Completed, before: str = ": ", after: str = "") -> str:
    """Why a call failed, by its first line on standard error that is no warning; empty where it says nothing.

    Compose quotes lines of an ``env_file`` that it cannot read, so whatever stands behind an equals sign is hidden.
    """
    lines = [line for line in done.errors.splitlines() if "level=warning" not in line]
    told = re.sub(r"=.*", "=***", Completed(done.code, "", "\n".join(lines)).complaint)
    return f"{before}{told}{after}" if told else ""


def may_read(user: str, path: Path) -> bool:
    """Whether that user can read the file; also where there is none."""
    if info_of(path, follow=False) is None:
        return True
    return run(["/usr/bin/test", "-r", path], environment={}, timeout=CALL_TIMEOUT, user=user).code == 0


def owner_and_mode(path: Path) -> str:
    """A file's owner and permission bits, to be shown."""
    info = info_of(path)
    return "not to be reached" if info is None else f"{user_name(info.st_uid)}, mode {info.st_mode & MODE_BITS:04o}"

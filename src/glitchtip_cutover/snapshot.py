"""The state of before, kept on the host: what every service reported to, and the bytes of ``.env``."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import CutoverError
from .files import fsync_directory, private_directory, read_json, write_json, write_new
from .pm2 import Process


@dataclass(frozen=True)
class Before:
    """A state that can be put back. ``carried`` is the DSN in a service's PM2 environment (None: it has
    none).

    ``pids`` are the process ids of a service's running instances. Both DSN fields are
    secrets; the files they are kept in are 600.
    """

    dsn: str = field(repr=False)
    carried: Mapping[str, str | None] = field(repr=False)
    pids: Mapping[str, list[int]]

    def effective(self, service: str) -> str:
        """The DSN that a service used: its PM2 environment wins over ``.env``."""
        return self.carried.get(service) or self.dsn


def pids_of(processes: Iterable[Process], name: str) -> list[int]:
    """Sorted process ids of a service's instances that run."""
    return sorted(process.pid for process in processes if process.name == name and process.online)


def take(dsn: str, processes: Iterable[Process], services: Iterable[str], key: str) -> Before:
    """The present state of ``services``."""
    wanted = set(services)
    mine = [process for process in processes if process.name in wanted]
    return Before(
        dsn=dsn,
        carried={process.name: process.environment.get(key) for process in mine},
        pids={name: pids_of(mine, name) for name in {process.name for process in mine}},
    )


def save_before(path: Path, before: Before) -> None:
    """Write a state to the file ``path`` (mode 600)."""
    write_json(path, asdict(before))


def load_before(path: Path) -> Before:
    """Read what ``save_before`` wrote. Raises CutoverError when it is missing or damaged."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("dsn"), str):
        raise CutoverError(f"the recorded state {path} is missing or damaged")
    return Before(dsn=data["dsn"], carried=dict(data["carried"]), pids=dict(data["pids"]))


class Snapshot:
    """The state of before the migration, in the directory ``before``; written once, never overwritten."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "before"

    @property
    def exists(self) -> bool:
        """Whether the snapshot was taken."""
        return (self.path / "snapshot.json").is_file()

    def write(
        self, env: bytes, mode: int, owner: tuple[int, int], before: Before, facts: dict[str, Any]
    ) -> None:
        """Write all files into a new directory and give it its name last, so that it is whole or absent."""
        part = self.path.with_name("before.part")
        shutil.rmtree(part, ignore_errors=True)
        private_directory(part)
        write_new(part / "env", env)
        write_new(part / "dsn", before.dsn.encode())
        save_before(part / "services.json", before)
        write_json(
            part / "snapshot.json",
            {
                **facts,
                "sha256": hashlib.sha256(env).hexdigest(),
                "mode": f"{mode:04o}",
                "uid": owner[0],
                "gid": owner[1],
            },
        )
        fsync_directory(part)
        part.rename(self.path)
        fsync_directory(self.path.parent)

    def facts(self) -> dict[str, Any]:
        """What may be shown: time, sha256, mode, owner, hosts. Raises CutoverError when there is none."""
        data = read_json(self.path / "snapshot.json")
        if not isinstance(data, dict):
            raise CutoverError(
                "there is no snapshot of the state before the migration; run snapshot (phase 0) first"
            )
        return data

    def before(self) -> Before:
        """The recorded state. Raises CutoverError when there is none."""
        self.facts()
        return load_before(self.path / "services.json")

    def env(self) -> tuple[bytes, int, tuple[int, int]]:
        """Bytes, mode and owner of ``.env``; its hash is checked (CutoverError)."""
        facts = self.facts()
        try:
            data = (self.path / "env").read_bytes()
        except OSError as error:
            raise CutoverError(f"the snapshot of .env cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise CutoverError("the snapshot of .env does not fit its recorded sha256")
        return data, int(facts["mode"], 8), (int(facts["uid"]), int(facts["gid"]))

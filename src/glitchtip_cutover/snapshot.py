"""The state of before, kept on the host: what every service reported to, the bytes of each ``.env``, the settings."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from glitchtip_core.files import fsync_directory, private_directory, read_json, write_json, write_new
from glitchtip_core.foreign_files import MODE_BITS
from glitchtip_core.foreign_paths import Place

from .config import Config
from .errors import CutoverError
from .manager import Process


@dataclass(frozen=True)
class Before:
    """A state that can be put back. ``carried`` is the DSN that a service's manager gives it (None: it gives none).

    ``dsn`` is the value of the first ``.env``, ``files`` of each by its path, ``sources`` names the ``.env`` of
    each service; states recorded before services could have their own hold neither. ``pids`` are the process ids
    of a service's running instances. All DSN fields are secrets; the files they are kept in are 600.
    """

    dsn: str = field(repr=False)
    carried: Mapping[str, str | None] = field(repr=False)
    pids: Mapping[str, list[int]]
    files: Mapping[str, str] = field(repr=False, default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def effective(self, service: str) -> str:
        """The DSN that a service used: what its manager gives it wins over its ``.env``."""
        return self.carried.get(service) or self.files.get(self.sources.get(service, ""), self.dsn)

    def value(self, path: Path) -> str:
        """The DSN in the ``.env`` at ``path``. Raises CutoverError when that file was not recorded."""
        if not self.files:
            return self.dsn
        try:
            return self.files[str(path)]
        except KeyError:
            raise CutoverError(f"the recorded state knows no file {path}") from None

    def missing(self, config: Config) -> list[str]:
        """What the configuration names and this state does not hold, as sentences."""
        told = "the snapshot of before the migration does not know"
        gone = [f"{told} the service {name}" for name in config.services if name not in self.carried]
        if self.files:
            gone += [f"{told} the file {path}" for path in config.env_files if str(path) not in self.files]
        elif len(config.env_files) > 1:
            gone.append(f"{told} more than one .env")
        return gone


@dataclass(frozen=True)
class EnvCopy:
    """One ``.env`` as it was: bytes, mode, (uid, gid), and where it really was (None: not recorded)."""

    path: Path
    data: bytes = field(repr=False)
    mode: int
    owner: tuple[int, int]
    place: Place | None = None


def pids_of(processes: Iterable[Process], name: str) -> list[int]:
    """Sorted process ids of a service's instances that run."""
    return sorted(process.pid for process in processes if process.name == name and process.online)


def take(config: Config, values: Mapping[Path, str], processes: Sequence[Process]) -> Before:
    """Record the DSN ``values`` of the ``.env`` files, and what the manager knows of the services."""
    carried: dict[str, str | None] = {}
    for name in config.services:
        held = [process.environment.get(config.env_key) for process in processes if process.name == name]
        carried[name] = held[0] if held else None
    return Before(
        dsn=values[config.env_files[0]],
        carried=carried,
        pids={name: pids_of(processes, name) for name in config.services},
        files={str(path): value for path, value in values.items()},
        sources={unit.name: str(unit.env_file) for unit in config.units},
    )


def save_before(path: Path, before: Before) -> None:
    """Write a state of before durably, mode 600."""
    write_json(path, asdict(before))


def load_before(path: Path) -> Before:
    """Read a recorded state. Raises CutoverError when it is missing or damaged."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("dsn"), str):
        raise CutoverError(f"the recorded state {path} is missing or damaged")
    try:
        return Before(
            dsn=data["dsn"],
            carried=dict(data["carried"]),
            pids=dict(data["pids"]),
            files=dict(data.get("files") or {}),
            sources=dict(data.get("sources") or {}),
        )
    except (KeyError, TypeError, ValueError):
        raise CutoverError(f"the recorded state {path} is incomplete or damaged") from None


class Snapshot:
    """The state of before the migration, in the directory ``before``; written once. Only the place of a ``.env`` may change."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "before"

    @property
    def exists(self) -> bool:
        """Whether the snapshot was taken."""
        return (self.path / "snapshot.json").is_file()

    def write(
        self,
        copies: Sequence[EnvCopy],
        before: Before,
        facts: Mapping[str, Any],
        document: Mapping[str, Any],
    ) -> None:
        """Write all files into a new directory and give it its name last, so that it is whole or absent.

        ``document`` is the configuration, which the way back uses where it is gone from its place.
        """
        part = self.path.with_name("before.part")
        shutil.rmtree(part, ignore_errors=True)
        private_directory(part)
        rows = []
        for number, copy in enumerate(copies, start=1):
            name = "env" if number == 1 else f"env-{number}"
            write_new(part / name, copy.data)
            rows.append(_row_of(copy, name, hashlib.sha256(copy.data).hexdigest()))
        write_new(part / "dsn", before.dsn.encode())
        save_before(part / "services.json", before)
        write_json(part / "config.json", dict(document))
        first = {key: rows[0][key] for key in ("sha256", "mode", "uid", "gid")}
        write_json(part / "snapshot.json", {**facts, **first, "files": rows})
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

    def move(self, copy: EnvCopy) -> None:
        """Record a ``.env`` that still holds its DSN of before, and is elsewhere by now, anew: its bytes and its place.

        The bytes come under a name of their own first, so that the snapshot is the earlier or the later one as a whole.
        """
        facts = self.facts()
        rows = [dict(row) for row in facts.get("files") or []]
        row = next((row for row in rows if row["path"] == str(copy.path)), None)
        if row is None:
            raise CutoverError(f"the snapshot holds no {copy.path}")
        digest = hashlib.sha256(copy.data).hexdigest()
        name = f"{str(row['name']).partition('.')[0]}.{digest[:16]}"
        (self.path / name).unlink(missing_ok=True)
        write_new(self.path / name, copy.data)
        fsync_directory(self.path)
        row |= _row_of(copy, name, digest)
        first = {key: rows[0][key] for key in ("sha256", "mode", "uid", "gid")}
        write_json(self.path / "snapshot.json", {**facts, **first, "files": rows})

    def manager(self) -> Mapping[str, Any]:
        """What the manager had recorded of itself (see ``Manager.recorded``); nothing without a snapshot, or in an older one."""
        try:
            found = self.facts().get("manager")
        except CutoverError:
            return {}
        return found if isinstance(found, dict) else {}

    def before(self) -> Before:
        """The recorded state. Raises CutoverError when there is none."""
        self.facts()
        return load_before(self.path / "services.json")

    def env(self, path: Path) -> EnvCopy:
        """The ``.env`` at ``path`` as it was; its hash is checked (CutoverError)."""
        facts = self.facts()
        rows = facts.get("files") or [{**facts, "path": str(path), "name": "env"}]
        row = next((row for row in rows if row["path"] == str(path)), None)
        if row is None:
            raise CutoverError(f"the snapshot holds no {path}")
        try:
            data = (self.path / row["name"]).read_bytes()
        except OSError as error:
            raise CutoverError(f"the snapshot of {path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise CutoverError(f"the snapshot of {path} does not fit its recorded sha256")
        return EnvCopy(path, data, int(row["mode"], 8) & MODE_BITS, (int(row["uid"]), int(row["gid"])))

    def place(self, path: Path) -> Place | None:
        """Where the ``.env`` at ``path`` really was; None without a snapshot, or in one that does not say it."""
        try:
            rows = self.facts().get("files") or []
            kept = next((row["place"] for row in rows if row["path"] == str(path)), None)
            return Place(**kept) if kept else None
        except (CutoverError, KeyError, TypeError):
            return None


def _row_of(copy: EnvCopy, name: str, digest: str) -> dict[str, Any]:
    """What is recorded of one ``.env``, whose bytes are in the file ``name``."""
    return {
        "path": str(copy.path),
        "name": name,
        "sha256": digest,
        "mode": f"{copy.mode:04o}",
        "uid": copy.owner[0],
        "gid": copy.owner[1],
        "place": asdict(copy.place) if copy.place else None,
    }

"""Where a change leads: the DSN of every ``.env`` and service, and the trackers that have to hold its events."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from glitchtip_core.dsn import Dsn, parse_dsn
from glitchtip_core.files import read_secret
from glitchtip_core.switch import GLITCHTIP as GLITCHTIP
from glitchtip_core.switch import MIRROR as MIRROR

from .config import Config, Side
from .errors import CutoverError
from .snapshot import Before

TARGETS = (GLITCHTIP, MIRROR)
_NOT_SET_UP = "the new tracker is not set up yet, or the configuration does not name it"


@dataclass(frozen=True)
class Target:
    """``name`` is glitchtip, mirror or before. Every side of a service has to hold its event.

    The first side of a service is where its own events are looked for; a service without one is proven by an
    event that was accepted.
    """

    name: str
    files: Mapping[Path, Dsn] = field(repr=False)
    services: Mapping[str, Dsn] = field(repr=False)
    sides: Mapping[str, tuple[Side, ...]]

    @property
    def fingerprint(self) -> str:
        """Hash of all its DSNs, to tell whether the same is meant."""
        values = {dsn.value for dsn in self.services.values()} | {dsn.value for dsn in self.files.values()}
        if len(values) == 1:
            return sha256(values.pop())
        rows = [f"{path}={dsn.value}" for path, dsn in self.files.items()]
        rows += [f"{name}={dsn.value}" for name, dsn in self.services.items()]
        return sha256("\n".join(sorted(rows)))

    @property
    def label(self) -> str:
        """Hosts of its DSNs, for people."""
        return ", ".join(dict.fromkeys(dsn.netloc for dsn in self.services.values()))

    def distinct(self) -> list[tuple[Dsn, tuple[Side, ...]]]:
        """Every pair of a DSN and its sides, once."""
        pairs = {
            (dsn.value, self.sides[name]): (dsn, self.sides[name]) for name, dsn in self.services.items()
        }
        return list(pairs.values())


def sha256(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def new_dsn(config: Config, name: str) -> tuple[Dsn, Side]:
    """The new DSN of a service, and where its events are read. Raises CutoverError when there is none yet."""
    side = config.side_for(name)
    if side is None or side.dsn_file is None:
        raise CutoverError(_NOT_SET_UP)
    what = (
        "the new DSN" if side.dsn_file == (config.new and config.new.dsn_file) else f"the new DSN of {name}"
    )
    return parse_dsn(read_secret(side.dsn_file, what), what), side


def to_glitchtip(config: Config) -> Target:
    """Every service on its new DSN."""
    found = {name: new_dsn(config, name) for name in config.services}
    services = {name: dsn for name, (dsn, _) in found.items()}
    return Target(
        GLITCHTIP,
        {path: services[config.sharing(path)[0]] for path in config.env_files},
        services,
        {name: (side,) for name, (_, side) in found.items()},
    )


def to_before(config: Config, before: Before) -> Target:
    """Every recorded service on its DSN of before the migration; read back where the old tracker can be asked."""
    services = {
        name: parse_dsn(before.effective(name), f"the recorded DSN of {name}")
        for name in config.services
        if name in before.carried
    }
    return Target(
        "before",
        {
            path: parse_dsn(before.value(path), f"the recorded DSN of {path}")
            for path in config.env_files
            if not before.files or str(path) in before.files
        },
        services,
        {name: _old_sides(config, before, dsn) for name, dsn in services.items()},
    )


def to_mirror(config: Config, before: Before) -> Target:
    """Every service on its old DSN behind the local listener, which copies its events to the new tracker."""
    from .mirror_routes import mirror_dsn

    def behind(old: Dsn) -> Dsn:
        return parse_dsn(mirror_dsn(old, config.mirror.listen), "the DSN of the mirror")

    if missing := before.missing(config):
        raise CutoverError(missing[0])
    back = to_before(config, before)
    return Target(
        MIRROR,
        {path: behind(dsn) for path, dsn in back.files.items()},
        {name: behind(dsn) for name, dsn in back.services.items()},
        {name: (new_dsn(config, name)[1], *back.sides[name]) for name in back.services},
    )


def _old_sides(config: Config, before: Before, dsn: Dsn) -> tuple[Side, ...]:
    """The old tracker, where it is configured and the DSN is of its project."""
    if config.old is None:
        return ()
    main = parse_dsn(before.dsn, "the recorded DSN")
    project = config.old.project_id or main.project_id
    return (config.old,) if (dsn.netloc, dsn.project_id) == (main.netloc, project) else ()

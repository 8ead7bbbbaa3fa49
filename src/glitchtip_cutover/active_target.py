"""The tracker that is in effect: which DSNs services and files may name, and which others this migration knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from glitchtip_core.dsn import Dsn, parse_dsn
from glitchtip_core.transaction.state import State

from .config import Config
from .errors import CutoverError, InterruptedRunError
from .snapshot import Before, Snapshot
from .targets import GLITCHTIP, MIRROR, Target, to_before, to_glitchtip, to_mirror


@dataclass(frozen=True)
class Wanted:
    """What counts: the active target, with services that were put back ``alone`` on their original DSN.

    ``others`` are the DSNs that this migration knows and that are not those of the target, by what they are called.
    ``strict``: any other DSN counts, not only a known one (before a switch the product's own choices are respected).
    """

    target: Target
    others: Mapping[str, str] = field(repr=False)
    strict: bool
    sources: Mapping[Path, str]  # where people find each new DSN
    alone: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """The target for people: its name and hosts."""
        return f"{self.target.name} ({self.target.label})"

    def allowed(self, service: str) -> list[Dsn]:
        """The DSNs that a service may have; those of all that were not put back alone where it is none of them."""
        if service in self.target.services:
            return [self.target.services[service]]
        return [dsn for name, dsn in self.target.services.items() if name not in self.alone]

    def is_same(self, value: str, allowed: Iterable[Dsn]) -> bool:
        """Whether ``value`` leads to one of ``allowed``: the same project by the same key, perhaps by another address."""
        try:
            found = parse_dsn(value)
        except CutoverError:
            return False
        return any(
            (found.key, found.project_id) == (dsn.key, dsn.project_id)
            and (found.netloc == dsn.netloc or _identity(found) not in self.others)
            for dsn in allowed
        )

    def known(self, value: str) -> str:
        """What a known other DSN is called; "" for any other value."""
        try:
            return self.others.get(_identity(parse_dsn(value)), "")
        except CutoverError:
            return ""

    def is_other_host(self, value: str) -> bool:
        """Whether ``value`` names a host of another known tracker."""
        hosts = {identity.split(" ")[0] for identity in self.others} - {
            dsn.netloc for dsn in self.target.services.values()
        }
        return any(f"@{host}/" in value for host in hosts)


def _identity(dsn: Dsn) -> str:
    return f"{dsn.netloc} {dsn.project_id} {dsn.key}"


def wanted_now(config: Config, state: State) -> Wanted | None:
    """What the journal says is in effect; None before the first switch and while a change is under way.

    Raises CutoverError when the target's DSNs cannot be read.
    """
    if state.phase not in ("applied", "confirmed", "rolled_back") or state.overriding:
        return None
    snapshot = Snapshot(config.state_dir)
    if not snapshot.exists:
        return None
    before = snapshot.before()
    name = state.stands
    target = (
        to_glitchtip(config) if name == GLITCHTIP else to_mirror(config, before) if name == MIRROR else None
    )
    if target is None:
        return _wanted(config, before, to_before(config, before), strict=False)
    back = to_before(config, before)
    alone = [name for name in state.overrides if name in back.services]
    files = {
        path: back.files[path] if path in back.files and set(config.sharing(path)) <= set(alone) else dsn
        for path, dsn in target.files.items()
    }
    services = {**target.services, **{name: back.services[name] for name in alone}}
    made = _wanted(config, before, replace(target, files=files, services=services), strict=True)
    return replace(made, others=_others(config, before, target), alone=frozenset(alone))


def wanted_after(config: Config, target: Target) -> Wanted | None:
    """What would count after a switch to ``target``; None without a snapshot."""
    snapshot = Snapshot(config.state_dir)
    return _wanted(config, snapshot.before(), target, strict=True) if snapshot.exists else None


def _wanted(config: Config, before: Before, target: Target, *, strict: bool) -> Wanted:
    sources: dict[Path, str] = {}
    if target.name == GLITCHTIP:
        for name in config.services:
            side = config.side_for(name)
            if side is not None and side.dsn_file is not None:
                sources[config.service(name).env_file] = str(side.dsn_file)
    return Wanted(target, _others(config, before, target), strict, sources)


def _others(config: Config, before: Before, target: Target) -> dict[str, str]:
    """The DSNs of the targets that are not in effect; a target that cannot be read now is left out."""
    others: dict[str, str] = {}
    makers: tuple[tuple[Callable[[], Target], str], ...] = (
        (lambda: to_before(config, before), "the original DSN"),
        (lambda: to_mirror(config, before), "the mirror's DSN"),
        (lambda: to_glitchtip(config), "the new DSN"),
    )
    for make, label in makers:
        try:
            made = make()
        except InterruptedRunError:
            raise
        except CutoverError:
            continue
        for dsn in [*made.files.values(), *made.services.values()]:
            others.setdefault(_identity(dsn), label)
    for dsn in [*target.files.values(), *target.services.values()]:
        others.pop(_identity(dsn), None)
    return others

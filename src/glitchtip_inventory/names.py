"""Misspelt variables: names that look like one of ours and that nothing reads."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .sources import Given, references

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Variables that the example inventory and the playbooks share without a role of that name.
SHARED_PREFIXES = ("product_", "migration_", "uninstall_", "cutover_")
#: How alike (0 to 1) a name outside of all prefixes must be to be taken for a slip of the pen.
_SLIP = 0.88
#: How alike a name must be to be offered as what was meant.
_NEAREST = 0.6


@dataclass(frozen=True)
class Known:
    """All names that something reads, and the prefix of each role (``ai_admin_cutover_`` -> ``ai-admin-cutover``)."""

    names: frozenset[str]
    prefixes: dict[str, str]

    def prefix_of(self, name: str) -> str:
        """The longest role prefix that the name begins with; empty when there is none."""
        return max((prefix for prefix in self.prefixes if name.startswith(prefix)), key=len, default="")


def read_known(root: Path) -> Known:
    """What the roles' argument specifications, the playbooks and the example inventory of a repository name."""
    names: set[str] = set()
    prefixes: dict[str, str] = {}
    for path in sorted((root / "roles").glob("*/meta/argument_specs.yml")):
        role = path.parents[1].name
        prefixes[role.replace("-", "_") + "_"] = role
        for entry in _load(path)["argument_specs"].values():
            names |= set(entry.get("options") or {})
    marks = (*prefixes, *SHARED_PREFIXES)
    for path in sorted((root / "playbooks").rglob("*.yml")):
        words = re.findall(r"(?<![\w.])[a-z][a-z0-9_]*\b", path.read_text(encoding="utf-8"))
        names |= {word for word in words if word.startswith(marks)}
    for path in sorted((root / "inventory/example/group_vars").rglob("*.yml")):
        names |= set(_load(path))
    return Known(frozenset(names), prefixes)


def _load(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
    return data or {}


def unknown_names(given: Sequence[Given], known: Known) -> Iterator[str]:
    """A sentence for each variable that nothing reads although its name says that it is one of ours."""
    used = {word for one in given for word in references(one.value) if word != one.name}
    for one in given:
        if one.name in known.names or one.name.startswith("ansible_"):
            continue
        if sentence := _judge(one, known, used):
            yield sentence


def _judge(one: Given, known: Known, used: Collection[str]) -> str:
    plain = one.name.strip("_").replace("-", "_").lower()
    prefix = known.prefix_of(plain)
    if one.name.startswith("__") and prefix:
        return (
            f"{one.place}: {one.name} is an internal variable of role {known.prefixes[prefix]} and must not be set. "
            f"Remove it{_offer(plain, known, ' or set {} instead')}."
        )
    if prefix:
        return (
            f"{one.place}: no role knows the variable {one.name}"
            f"{_offer(plain, known, '; did you mean {}?', '. Remove it or give it another name.')}"
        )
    if one.name in used:
        return ""
    shared = one.name.startswith(SHARED_PREFIXES)
    offer = _offer(plain, known, "{}", cutoff=_NEAREST if shared else _SLIP)
    if shared or offer:
        return f"{one.place}: nothing reads the variable {one.name}" + (
            f"; did you mean {offer}?" if offer else ". Remove it."
        )
    return ""


def _offer(name: str, known: Known, text: str, otherwise: str = "", *, cutoff: float = _NEAREST) -> str:
    """``text`` with the nearest known name in it; ``otherwise`` when none is near."""
    own = known.prefix_of(name)
    for group in ([word for word in known.names if own and word.startswith(own)], known.names):
        if found := difflib.get_close_matches(name, sorted(group), 1, cutoff):
            return text.format(found[0])
    return otherwise

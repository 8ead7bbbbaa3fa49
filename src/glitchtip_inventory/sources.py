"""Where the variables of an inventory are set: its files, their lines, and the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Load = Callable[[Path], Any]
COMMAND_LINE = "the command line (-e)"
_VARIABLE_DIRECTORIES = ("group_vars", "host_vars")
_SUFFIXES = ("", ".yml", ".yaml", ".json")
_INI_PAIR = re.compile(r"(?:^|\s)([A-Za-z_][\w-]*)\s*=\s*(\"[^\"]*\"|'[^']*'|\S*)")


@dataclass(frozen=True)
class Given:
    """One variable as somebody set it: its name, its value before templating (may be secret), and the place."""

    name: str
    value: Any = field(repr=False)
    place: str


def is_readable_name(path: Path) -> bool:
    """Whether Ansible reads a file of that name below group_vars or host_vars."""
    return path.suffix in _SUFFIXES and not path.name.startswith(".") and not path.name.endswith("~")


def inventory_files(sources: Sequence[str]) -> list[Path]:
    """The files that list hosts and groups; host lists (``a,b``) and executables have no variables to read."""
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if "," in source or not path.exists():
            continue
        candidates = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [file for file in candidates if file.is_file() and _lists_hosts(file)]
    return found


def _lists_hosts(path: Path) -> bool:
    hidden = path.name.startswith(".") or path.name.endswith(("~", ".orig", ".bak", ".cfg", ".retry"))
    return not hidden and not path.stat().st_mode & 0o111


def variable_files(sources: Sequence[str], playbook_directory: Path | None = None) -> list[Path]:
    """The files of group_vars and host_vars beside each inventory and beside the playbooks, each once."""
    parents: list[Path] = []
    for source in sources:
        if "," not in source:
            path = Path(source)
            parents.append(path if path.is_dir() else path.parent)
    if playbook_directory is not None:
        parents.append(playbook_directory)
    found: dict[Path, None] = {}
    for parent in parents:
        for name in _VARIABLE_DIRECTORIES:
            for path in sorted((parent / name).rglob("*")):
                if path.is_file() and is_readable_name(path.relative_to(parent)):
                    found[path.resolve()] = None
    return list(found)


def shown_path(path: Path) -> str:
    """The path as people type it: relative to the current directory where it is below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read_given(
    sources: Sequence[str],
    extra: Mapping[str, Any],
    load: Load,
    playbook_directory: Path | None = None,
) -> list[Given]:
    """Every variable that an operator set, each with its place; a file that cannot be loaded is left to Ansible."""
    found: list[Given] = []
    for path in variable_files(sources, playbook_directory):
        try:
            data = load(path)
        except Exception:  # noqa: S112 - Ansible itself has read the file, or fails with its own message
            continue
        if isinstance(data, dict):
            found += _placed(path, data)
    for path in inventory_files(sources):
        found += _read_inventory_file(path)
    found += [Given(str(name), value, COMMAND_LINE) for name, value in extra.items()]
    return found


def _placed(path: Path, data: Mapping[Any, Any]) -> Iterator[Given]:
    text = path.read_text(encoding="utf-8", errors="replace")
    for name, value in data.items():
        if isinstance(name, str):
            yield Given(name, value, _place(path, text, name))


def _place(path: Path, text: str, name: str) -> str:
    """File and line of a variable; without a line where the file is encrypted."""
    match = re.search(rf"(?<![\w.#-]){re.escape(name)}[\"']?\s*[:=]", text)
    line = "" if match is None else f" line {text.count(chr(10), 0, match.start()) + 1}"
    return f"{shown_path(path)}{line}"


def _read_inventory_file(path: Path) -> list[Given]:
    """Variables that stand among the hosts, in YAML or in INI."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix in (".yml", ".yaml", ".json"):
        try:
            data = yaml.load(text, Loader=_Lenient)  # noqa: S506 - a safe loader
        except yaml.YAMLError:
            return []
        pairs = dict(_variables_of(data))
    else:
        pairs = dict(_ini_variables(text))
    return [Given(name, value, _place(path, text, name)) for name, value in pairs.items()]


class _Lenient(yaml.SafeLoader):
    """YAML with Ansible's own tags (``!vault``, ``!unsafe``), whose values are left out."""


_Lenient.add_multi_constructor("!", lambda _loader, _tag, _node: "")


def _variables_of(node: Any) -> Iterator[tuple[str, Any]]:
    """Names and values below ``vars`` and below each host."""
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "vars" and isinstance(value, dict):
            yield from ((str(name), item) for name, item in value.items())
        elif key == "hosts" and isinstance(value, dict):
            for host in value.values():
                if isinstance(host, dict):
                    yield from ((str(name), item) for name, item in host.items())
        else:
            yield from _variables_of(value)


def _ini_variables(text: str) -> Iterator[tuple[str, Any]]:
    section = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped.strip("[]")
        elif stripped and not stripped.startswith(("#", ";")) and not section.endswith(":children"):
            body = stripped if section.endswith(":vars") else stripped.partition(" ")[2]
            for name, value in _INI_PAIR.findall(body):
                yield name, value.strip("\"'")


def text_of(value: Any) -> Iterator[str]:
    """Every text within a value, at any depth; keys are not included."""
    if isinstance(value, str):
        yield value
    elif type(value).__name__ in ("EncryptedString", "AnsibleVaultEncryptedUnicode"):
        yield str(value)  # Ansible's value of !vault, decrypted by asking for its text
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from text_of(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from text_of(item)


def references(value: Any) -> set[str]:
    """Identifiers in the templates of a value."""
    return {
        word
        for text in text_of(value)
        if "{{" in text or "{%" in text
        for word in re.findall(r"[A-Za-z_]\w*", text)
    }

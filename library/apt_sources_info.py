#!/usr/bin/python
"""Which package sources of a host define a repository, and whether another one may be written beside them."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: apt_sources_info
short_description: Find the sources that define a package repository
description:
  - Reads every C(.list) and C(.sources) file of apt and finds the entries of one repository and suite.
  - apt fails at every command when two entries of one address and suite name different keys (C(Signed-By)). So what
    another party wrote is used as it is when it is equivalent, and otherwise named, before anything is written.
  - Nothing is changed.
options:
  url:
    description: Address of the repository.
    type: str
    required: true
  suite:
    description: Suite that is needed.
    type: str
    required: true
  component:
    description: Component that is needed; of no meaning for a suite that ends with a slash.
    type: str
    default: ""
  architecture:
    description: Architecture of dpkg that is needed.
    type: str
    required: true
  signed_by:
    description: Key file that an entry of our own would name.
    type: str
    required: true
  own_file:
    description: File that an entry of our own is in.
    type: str
    required: true
  own_mark:
    description: A line of that file by which it is known as ours.
    type: str
    default: "# Ansible managed"
  directory:
    description: Directory of apt's settings.
    type: path
    default: /etc/apt
attributes:
  check_mode:
    description: Runs the same, because it only reads.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
author:
  - The maintainers of this repository (@maintainers)
"""

EXAMPLES = r"""
- name: Find who defines Docker's repository
  apt_sources_info:
    url: https://download.docker.com/linux/debian
    suite: bookworm
    component: stable
    architecture: amd64
    signed_by: /etc/apt/keyrings/docker.asc
    own_file: /etc/apt/sources.list.d/docker.sources
  register: sources
"""

RETURN = r"""
decision:
  description:
    - C(adopt), an equivalent entry of another party exists; C(write), an entry of our own may be written; C(refuse),
      one would break apt.
  returned: always
  type: str
problem:
  description: One sentence for the operator where the decision is C(refuse), else empty.
  returned: always
  type: str
adopted:
  description: C(path), C(line), C(signed_by) and C(trusted) of the entry that is used as it is, or empty.
  returned: always
  type: dict
own:
  description: Whether our own file is there.
  returned: always
  type: bool
key_users:
  description: Files of others that name the same key file.
  returned: always
  type: list
  elements: str
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_core.text import printable_module

#: Other names in the directory are ignored by apt.
FILE_NAME = re.compile(r"[A-Za-z0-9_.-]+\.(?:list|sources)")
ONE_LINE = re.compile(r"\s*(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<rest>\S.*)")
#: Options that apt keeps for an address and suite: it fails at every command when two entries differ in one of them.
SHARED = (
    "signed-by",
    "trusted",
    "allow-insecure",
    "allow-weak",
    "allow-downgrade-to-insecure",
    "check-valid-until",
    "valid-until-min",
    "valid-until-max",
    "check-date",
    "date-max-future",
)
FALSE = {"no", "false", "without", "off", "disable", "0"}


@dataclass(frozen=True)
class Entry:
    """One enabled entry, or stanza with all its combinations. ``options`` are those of SHARED that are given."""

    path: str
    line: int
    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    architectures: tuple[str, ...]
    options: tuple[tuple[str, str], ...]

    @property
    def signed_by(self) -> str:
        """Key files, separated by commas, or a key as text; "" for none."""
        return dict(self.options).get("signed-by", "")

    @property
    def trusted(self) -> bool:
        """Whether the entry lets apt do without a signature."""
        return dict(self.options).get("trusted", "").lower() in {"yes", "true", "1", "on"}

    @property
    def place(self) -> str:
        """For people."""
        return f"{self.path}, line {self.line}"

    @property
    def key(self) -> str:
        """How a sentence names its key."""
        others = [f"{name} {value}" for name, value in self.options if name != "signed-by"]
        key = f"Signed-By {self.signed_by}" if self.signed_by else "no Signed-By"
        return ", ".join(["a key as text" if "\n" in self.signed_by else key, *others])


def normal_uri(uri: str) -> str:
    """What tells repositories apart: host in small letters and path, as apt does without scheme and credentials."""
    try:
        parts = urlsplit(uri.strip())
        port = parts.port if parts.port not in (80, 443) else None
    except ValueError:
        return uri.strip().rstrip("/")
    host = (parts.hostname or "") + (f":{port}" if port else "")
    return f"{host}{re.sub('/+', '/', parts.path)}".rstrip("/") or uri.strip()


def words(text: str) -> tuple[str, ...]:
    """Values that are separated by commas or white space."""
    return tuple(text.replace(",", " ").split())


def shared(options: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Options of SHARED, the key files in one form."""
    found = {name: options[name].strip(" ") for name in SHARED if options.get(name, "").strip()}
    if "signed-by" in found and "\n" not in found["signed-by"]:
        found["signed-by"] = ",".join(words(found["signed-by"]))
    return tuple(sorted(found.items()))


def parse_list(path: str, text: str) -> list[Entry]:
    """The entries of a ``.list`` file; what is no entry is left out (apt itself complains about it)."""
    found: list[Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = ONE_LINE.fullmatch(line.split("#", 1)[0].rstrip())
        if match is None:
            continue
        uri, *rest = match["rest"].split()
        if not rest:
            continue
        options = {name.lower(): value for name, _, value in (word.partition("=") for word in (match["options"] or "").split())}
        found.append(
            Entry(
                path,
                number,
                (match["type"],),
                (normal_uri(uri),),
                (rest[0],),
                tuple(rest[1:]),
                words(options.get("arch", "")),
                shared(options),
            )
        )
    return found


def stanzas(text: str) -> list[tuple[int, dict[str, str]]]:
    """(first line, fields by small name) of each paragraph of a deb822 file; comments are left out."""
    found: list[tuple[int, dict[str, str]]] = []
    current: dict[str, str] = {}
    name = ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.startswith("#"):
            continue
        if not line.strip():
            current, name = {}, ""
        elif line[0] in " \t":
            if name:
                current[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            if not current:
                found.append((number, current))
            current[name] = value.strip()
    return found


def parse_sources(path: str, text: str) -> list[Entry]:
    """The enabled entries of a ``.sources`` file."""
    return [
        Entry(
            path,
            number,
            words(fields.get("types", "")),
            tuple(normal_uri(uri) for uri in fields.get("uris", "").split()),
            tuple(fields.get("suites", "").split()),
            tuple(fields.get("components", "").split()),
            words(fields.get("architectures", "")),
            shared(fields),
        )
        for number, fields in stanzas(text)
        if fields.get("enabled", "yes").lower() not in FALSE
    ]


def files(directory: Path) -> list[Path]:
    """The files that apt reads."""
    parts = directory / "sources.list.d"
    names = sorted(path for path in parts.glob("*") if FILE_NAME.fullmatch(path.name)) if parts.is_dir() else []
    return [path for path in (directory / "sources.list", *names) if path.is_file()]


def read_entries(directory: Path) -> list[Entry]:
    """Every enabled entry, in the order in which apt reads them."""
    found: list[Entry] = []
    for path in files(directory):
        text = path.read_text(encoding="utf-8", errors="replace")
        found += (parse_sources if path.suffix == ".sources" else parse_list)(str(path), text)
    return found


@dataclass(frozen=True)
class Wanted:
    """The entry that is needed, and where ours would be."""

    url: str
    suite: str
    component: str
    architecture: str
    signed_by: str
    own_file: str

    def same_place(self, entry: Entry) -> bool:
        """Whether an entry is of this address and suite: then both must name the same key."""
        return normal_uri(self.url) in entry.uris and self.suite in entry.suites

    def is_covered_by(self, entry: Entry) -> bool:
        """Whether packages that are needed come from an entry."""
        return (
            self.same_place(entry)
            and "deb" in entry.types
            and (self.suite.endswith("/") or self.component in entry.components)
            and (not entry.architectures or self.architecture in entry.architectures)
        )


def decide(wanted: Wanted, entries: list[Entry], own: bool) -> tuple[str, str, Entry | None]:
    """(decision, problem, adopted entry); ``own``: the file at ``own_file`` is ours, so what it holds does not count."""
    others = [entry for entry in entries if not (own and entry.path == wanted.own_file)]
    rivals = [entry for entry in others if wanted.same_place(entry)]
    keys = {entry.options for entry in rivals}
    where = f"{wanted.url} {wanted.suite}"
    if len(keys) > 1:
        named = "; ".join(f"{entry.place} ({entry.key})" for entry in rivals)
        return "refuse", f"{where} is defined in different ways, so every apt command fails: {named}. Keep one of them.", None
    covering = next((entry for entry in rivals if wanted.is_covered_by(entry)), None)
    if covering is not None:
        return "adopt", "", covering
    if rivals and keys != {(("signed-by", wanted.signed_by),)}:
        entry = rivals[0]
        problem = (
            f"{entry.place} defines {where} with {entry.key}, but not component {wanted.component} of {wanted.architecture}. "
            f"An entry of our own would name {wanted.signed_by} alone, and apt fails at every command when the two differ. "
            "Add the component there, or remove that entry."
        )
        return "refuse", problem, None
    if not own and any(entry.path == wanted.own_file for entry in others):
        return "refuse", f"{wanted.own_file} was not written by this role and does not define {where}. Rename it.", None
    return "write", "", None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "suite": {"type": "str", "required": True},
            "component": {"type": "str", "default": ""},
            "architecture": {"type": "str", "required": True},
            "signed_by": {"type": "str", "required": True},
            "own_file": {"type": "str", "required": True},
            "own_mark": {"type": "str", "default": "# Ansible managed"},
            "directory": {"type": "path", "default": "/etc/apt"},
        },
        supports_check_mode=True,
    )
    printable_module(module)
    options: dict[str, Any] = dict(module.params)
    mark, directory = options.pop("own_mark"), Path(options.pop("directory"))
    wanted = Wanted(**options)
    try:
        entries = read_entries(directory)
        own_file = Path(wanted.own_file)
        own = own_file.is_file() and mark in own_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        module.fail_json(msg=f"The package sources cannot be read: {error.filename}: {error.strerror}.")
        return
    decision, problem, adopted = decide(wanted, entries, own)
    module.exit_json(
        changed=False,
        decision=decision,
        problem=problem,
        adopted={}
        if adopted is None
        else {
            "path": adopted.path,
            "line": adopted.line,
            "signed_by": adopted.signed_by,
            "trusted": adopted.trusted,
        },
        own=own,
        key_users=sorted(
            {each.path for each in entries if wanted.signed_by in each.signed_by.split(",")}
            - ({wanted.own_file} if own else set())
        ),
    )


if __name__ == "__main__":
    main()

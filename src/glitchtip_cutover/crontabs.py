"""Crontabs, and scripts that are run by time or at boot: a line of them may start a service with a DSN of its own.

Every line counts, whatever its schedule (``0 3 * * *``, ``@reboot``, ``@daily``), and so do the variables that a crontab
sets for all its lines. Places are those of Debian's cron, cronie and SUSE's cron.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from glitchtip_core.foreign_files import info_of
from glitchtip_core.foreign_search import ForeignFile, find_files, read_foreign

_SPOOLS = ("crontabs", "tabs", ".")
_TABLES = ("crontab", "anacrontab", "rc.local", "rc.d/rc.local")
_SCRIPTS = ("cron.hourly", "cron.daily", "cron.weekly", "cron.monthly")
# An absolute path in a command, as a word of its own or behind an equals sign (--env-file=/srv/app/.env).
_PATH = re.compile(r"(?<![\w./~$}-])/(?:[\w.@+-]+/)*[\w.@+-]+")
_MOST_PATHS = 200


def owners_of(paths: Iterable[Path]) -> set[str]:
    """Names of the users to whom these belong; what is not there, and users without a name, are left out."""
    found = set()
    for path in paths:
        info = info_of(path)
        if info is not None:
            with contextlib.suppress(KeyError):
                found.add(pwd.getpwuid(info.st_uid).pw_name)
    return found


def read_crontabs(users: Iterable[str], etc: Path, spool: Path) -> Iterator[ForeignFile]:
    """The crontabs of these ``users`` and of the system, then scripts that are run by time or at boot."""
    for user in sorted(users):
        for directory in _SPOOLS:
            yield from _existing(Path(os.path.normpath(spool / directory / user)))
    for name in _TABLES:
        yield from _existing(etc / name)
    yield from find_files(etc / "cron.d", _is_table, lambda _name: False, 0)
    for name in _SCRIPTS:
        yield from find_files(etc / name, lambda name: "." not in name, lambda _name: False, 0)


def _existing(path: Path) -> Iterator[ForeignFile]:
    found = read_foreign(path)
    if found is not None:
        yield found


def _is_table(name: str) -> bool:
    """Whether a cron reads a file of that name: Debian's none with a dot, cronie those of packages' leftovers not."""
    return not name.startswith(".") and not re.search(
        r"(~|\.(bak|old|orig|save|swp|disabled|rpm\w+|dpkg-\w+))$", name
    )


def named_files(text: str) -> list[Path]:
    """Absolute paths that the lines name, comments left out, each once."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    paths = dict.fromkeys(match[0] for line in lines for match in _PATH.finditer(line))
    return [Path(path) for path in list(paths)[:_MOST_PATHS]]

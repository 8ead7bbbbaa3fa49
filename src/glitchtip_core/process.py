"""Run another program: no shell, exactly the given environment, as a given user, always with a time limit."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import CoreError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHOWN = 200


def search_path() -> str:
    """The PATH for programs that are started by their names: ours, without relative directories.

    A relative one, or an empty one, would be the current directory, which anybody may have written to.
    """
    given = os.environ.get("PATH", "").split(":")
    return ":".join(place for place in given if place.startswith("/")) or SYSTEM_PATH


_CREDENTIALS = re.compile(r"://[^\s/@]+@")


@dataclass(frozen=True)
class Completed:
    """Exit code and output of a program that ran to its end."""

    code: int
    output: str = field(repr=False)
    errors: str = field(repr=False)

    @property
    def complaint(self) -> str:
        """The first line of its standard error: printable, credentials of URLs masked, 200 characters at most.

        Standard output is never quoted: PM2 prints whole environments there.
        """
        for line in self.errors.splitlines():
            text = "".join(sign if sign.isprintable() else " " for sign in line).strip()
            if text:
                return _CREDENTIALS.sub("://***@", text)[:_SHOWN]
        return ""


@dataclass(frozen=True)
class Identity:
    """Numbers of a user, the group and further groups."""

    user: int
    group: int
    groups: tuple[int, ...] = ()


def account_of(user: str) -> pwd.struct_passwd:
    """The entry of ``user`` in the user database. Raises CoreError when there is no such user."""
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise CoreError(f"there is no user {user} on this host") from None


def user_name(number: int) -> str:
    """Name of the user with that id; the number itself where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


def run(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    timeout: float,
    user: str | None = None,
    identity: Identity | None = None,
    cwd: Path | str = "/",
    stdin: str = "",
) -> Completed:
    """Run ``argv`` as ``user`` or ``identity`` (default: as we are) and wait for its end, ``timeout`` seconds at most.

    ``environment`` is the whole environment; secrets belong there or into ``stdin``, never into ``argv``.
    An exit code other than 0 is no error here.

    Raises:
        CoreError: the program is missing, the user cannot be taken on, or the time is over (it is killed then).
    """
    name = Path(argv[0]).name
    taken_on: dict[str, object] = {}
    if identity is not None and identity.user != os.geteuid():
        taken_on = {"user": identity.user, "group": identity.group, "extra_groups": list(identity.groups)}
    if user is not None:
        account = account_of(user)
        if account.pw_uid != os.geteuid():
            groups = os.getgrouplist(user, account.pw_gid)
            taken_on = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            [str(part) for part in argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(environment),
            cwd=cwd,
            timeout=timeout,
            check=False,
            start_new_session=True,
            **taken_on,
        )
    except subprocess.TimeoutExpired:
        raise CoreError(f"{name} did not end within {timeout:g} s") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CoreError(f"{name} cannot be run: {reason}") from None
    return Completed(done.returncode, done.stdout, done.stderr)

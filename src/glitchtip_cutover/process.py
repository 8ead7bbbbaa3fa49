"""The one way to run another program: no shell, a minimal environment, always a time limit."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import CutoverError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Completed:
    """Exit code and output of a program that ran to its end."""

    code: int
    output: str = field(repr=False)
    errors: str = field(repr=False)


@dataclass(frozen=True)
class Identity:
    """Numbers of a user, the group and further groups."""

    user: int
    group: int
    groups: tuple[int, ...] = ()


def user_home(user: str) -> str:
    """Home directory of ``user``. Raises CutoverError when there is no such user."""
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        raise CutoverError(f"there is no user {user} on this host") from None


def user_id(user: str) -> int:
    """Number of ``user``. Raises CutoverError when there is no such user."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise CutoverError(f"there is no user {user} on this host") from None


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
    """Run ``argv`` as ``user`` or ``identity`` (default: as we are) and wait for its end.

    ``environment`` is the whole environment; secrets belong there, never into ``argv``. Raises CutoverError
    when the program is missing, the user cannot be taken on, or ``timeout`` seconds have passed (it is killed
    then).
    """
    name = Path(argv[0]).name
    taken_on: dict[str, object] = {}
    if identity is not None and identity.user != os.geteuid():
        taken_on = {"user": identity.user, "group": identity.group, "extra_groups": list(identity.groups)}
    if user is not None:
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            raise CutoverError(f"there is no user {user} on this host") from None
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
        raise CutoverError(f"{name} did not end within {timeout:g} s") from None
    except OSError as error:
        raise CutoverError(f"{name} cannot be run: {error.strerror or type(error).__name__}") from None
    return Completed(done.returncode, done.stdout, done.stderr)

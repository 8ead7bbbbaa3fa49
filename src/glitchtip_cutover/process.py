"""The one way to run another program: no shell, a minimal environment, always a time limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from glitchtip_core import process as core
from glitchtip_core.errors import CoreError
from glitchtip_core.process import SYSTEM_PATH as SYSTEM_PATH
from glitchtip_core.process import Completed as Completed
from glitchtip_core.process import Identity as Identity
from glitchtip_core.process import search_path as search_path
from glitchtip_core.process import user_name as user_name

from .errors import CutoverError


def user_home(user: str) -> str:
    """Home directory of ``user``. Raises CutoverError when there is no such user."""
    try:
        return core.account_of(user).pw_dir
    except CoreError as error:
        raise CutoverError(str(error)) from None


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
    try:
        return core.run(
            argv, environment=environment, timeout=timeout, user=user, identity=identity, cwd=cwd, stdin=stdin
        )
    except CoreError as error:
        raise CutoverError(str(error)) from None

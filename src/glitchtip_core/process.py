"""Run another program: no shell, exactly the given environment, as a given user, with limits in time and output."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .errors import CoreError
from .text import printable

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Bytes that a program may print in all, unless its caller says otherwise; the largest expected is a container's log.
OUTPUT_LIMIT = 64 * 2**20
_SHOWN = 200
_ENV = "/usr/bin/env"
#: Its exit codes when it could not go to the directory, or not start or find the program (coreutils' manual).
_ENV_FAILED = (125, 126, 127)
_BLOCK = 2**16
_KILL_SECONDS = 10.0


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
            text = printable(line, " ").strip()
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


def user_home(user: str) -> str:
    """Home directory of ``user``. Raises CoreError when there is no such user."""
    return account_of(user).pw_dir


def user_name(number: int) -> str:
    """Name of the user with that id; the number itself where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


@dataclass(frozen=True)
class RawCompleted:
    """Exit code and raw output of a program; ``output`` is empty when it was connected to a file."""

    code: int
    output: bytes = field(repr=False)
    errors: bytes = field(repr=False)


def in_directory(words: Sequence[str], directory: Path | str) -> list[str]:
    """The command line that goes to ``directory`` first, by itself: as the user it is started as, not as its starter.

    ``subprocess`` changes the directory before it takes the user on, so that a child of root's would get into directories
    that are closed to that user, and could read below them. Raises CoreError for a program that ``env`` cannot name.
    """
    if str(directory) == "/":
        return list(words)
    if "=" in words[0]:
        raise CoreError(f"{words[0]} cannot be run as another user: its path holds an equals sign")
    return [_ENV, f"--chdir={directory}", *words]


def run(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    timeout: float,
    user: str | None = None,
    identity: Identity | None = None,
    cwd: Path | str = "/",
    stdin: str = "",
    limit: int = OUTPUT_LIMIT,
) -> Completed:
    """Run ``argv`` as ``user`` or ``identity`` (default: as we are) and wait for its end, ``timeout`` seconds at most.

    ``environment`` is the whole environment; secrets belong there or into ``stdin``, never into ``argv``.
    An exit code other than 0 is no error here.

    Raises:
        CoreError: the program is missing, the user cannot be taken on, the time is over, or it printed more than
            ``limit`` bytes (it is killed then, with what it started).
    """
    raw = run_raw(
        argv,
        environment=environment,
        timeout=timeout,
        user=user,
        identity=identity,
        cwd=cwd,
        stdin=stdin.encode("utf-8", "surrogateescape"),
        limit=limit,
    )
    return Completed(raw.code, _text(raw.output), _text(raw.errors))


def run_raw(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    timeout: float,
    user: str | None = None,
    identity: Identity | None = None,
    cwd: Path | str = "/",
    stdin: bytes | IO[bytes] = b"",
    stdout: IO[bytes] | None = None,
    limit: int = OUTPUT_LIMIT,
) -> RawCompleted:
    """As :func:`run`, with bytes; ``stdin`` and ``stdout`` may be files, which then count for no limit."""
    name = Path(argv[0]).name
    words = [str(part) for part in argv]
    taken_on = _taken_on(user, identity)
    if taken_on:
        words, cwd = in_directory(words, cwd), "/"
    try:
        process = subprocess.Popen(  # type: ignore[call-overload]
            words,
            stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
            **taken_on,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CoreError(f"{name} cannot be run: {reason}") from None
    try:
        output, errors = _exchange(process, stdin if isinstance(stdin, bytes) else b"", timeout, limit)
    except subprocess.TimeoutExpired:
        raise CoreError(f"{name} did not end within {timeout:g} s") from None
    except OverflowError:
        raise CoreError(f"{name} printed more than {limit} bytes and was ended") from None
    finally:
        _end(process)
    if words[0] == _ENV and process.returncode in _ENV_FAILED and errors.startswith(f"{_ENV}: ".encode()):
        reason = _text(errors).splitlines()[0].rpartition(": ")[2]
        raise CoreError(f"{name} cannot be run in {words[1].partition('=')[2]}: {reason}")
    return RawCompleted(process.returncode, output, errors)


def _taken_on(user: str | None, identity: Identity | None) -> dict[str, object]:
    """Options of Popen for another user. Raises CoreError when there is no such user."""
    if user is not None:
        account = account_of(user)
        if account.pw_uid == os.geteuid():
            return {}
        groups = os.getgrouplist(user, account.pw_gid)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    if identity is not None and identity.user != os.geteuid():
        return {"user": identity.user, "group": identity.group, "extra_groups": list(identity.groups)}
    return {}


def _exchange(
    process: subprocess.Popen[bytes], given: bytes, timeout: float, limit: int
) -> tuple[bytes, bytes]:
    """Write ``given``, read both outputs to their ends and wait.

    Raises TimeoutExpired after ``timeout`` seconds, and OverflowError once both outputs exceed ``limit`` bytes.
    """
    deadline = time.monotonic() + timeout
    gathered = {stream: bytearray() for stream in (process.stdout, process.stderr) if stream is not None}
    left = memoryview(given)
    with selectors.DefaultSelector() as selector:
        for stream in gathered:
            selector.register(stream, selectors.EVENT_READ)
        if process.stdin is not None:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise subprocess.TimeoutExpired(process.args, timeout)
            for key, _ in selector.select(remaining):
                if key.fileobj is process.stdin:
                    try:
                        left = left[os.write(key.fd, left[: select.PIPE_BUF]) :]
                    except BrokenPipeError:
                        left = left[:0]
                    if not left:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                block = os.read(key.fd, _BLOCK)
                if not block:
                    selector.unregister(key.fileobj)
                gathered[key.fileobj] += block  # type: ignore[index]
                if sum(map(len, gathered.values())) > limit:
                    raise OverflowError
    process.wait(timeout=max(0.0, deadline - time.monotonic()))
    output, errors = (
        bytes(gathered[each]) if each in gathered else b"" for each in (process.stdout, process.stderr)
    )
    return output, errors


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs of the program's session, and close its pipes."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_KILL_SECONDS)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")

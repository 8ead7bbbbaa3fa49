"""Files that must survive a power cut: written beside, fsynced, renamed; and a lock that nobody waits for."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .process import OpsError


def fsync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(directory: Path) -> None:
    """Create ``directory`` (and its parents) for its owner only; an existing one keeps its mode."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_bytes(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data`` in one step: whole or not at all, with ``mode``. Raises OpsError."""
    make_private(path.parent)
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(path)
        fsync_directory(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OpsError(f"{path} cannot be written: {error.strerror}") from None


def write_json(path: Path, data: Mapping[str, Any], mode: int = 0o600) -> None:
    """Write ``data`` as JSON, keys sorted, in one step."""
    write_bytes(path, (json.dumps(data, indent=2, sort_keys=True) + "\n").encode(), mode)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``; None when there is no such file. Raises OpsError when it is not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise OpsError(f"{path} is not JSON") from None
    if not isinstance(data, dict):
        raise OpsError(f"{path} does not hold a JSON object")
    return data


def append_line(path: Path, line: str, mode: int = 0o600) -> None:
    """Append one line and fsync it. A torn last line of an earlier power cut is closed first."""
    make_private(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)
        with os.fdopen(descriptor, "rb+", buffering=0) as stream:
            size = stream.seek(0, os.SEEK_END)
            torn = b""
            if size:
                stream.seek(size - 1)
                torn = b"" if stream.read(1) == b"\n" else b"\n"
            left = memoryview(torn + line.encode() + b"\n")
            while left:  # a disk that is nearly full takes a part and says so by the count only
                left = left[stream.write(left) :]
            os.fsync(stream.fileno())
    except OSError as error:
        raise OpsError(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold ``path`` for the block; a second holder is refused at once. Raises OpsError then."""
    make_private(path.parent)
    with path.open("w", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OpsError(f"{what} runs already on this host; try again when it has ended") from None
        yield

"""A file of another user on a full disk: its bytes are replaced in place, or it stays as it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core import files, foreign_files
from glitchtip_core.files import is_no_room
from glitchtip_core.foreign_files import Content, read, write, write_over
from glitchtip_core.foreign_paths import ForeignError, walk

OTHER = 54321
LIMIT = 1 << 20
OLD = b"A=1\nB=their bytes\nC=3\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
pytestmark = needs_root


def refused(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of the other user, in a directory of that user."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    file = directory / "file"
    file.write_bytes(OLD)
    file.chmod(0o640)
    for one in (directory, file):
        os.chown(one, OTHER, OTHER)
    return file


@pytest.fixture
def full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No new file can be made, once there is the one at ``path``."""
    assert path.exists()
    opening = os.open

    def opened(name: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise refused()
        return opening(name, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", opened)


def over(path: Path, data: bytes, meanwhile: Callable[[], object] = lambda: None, **more: Any) -> None:
    """Read the file, let something happen, and write it."""
    with walk(path) as found:
        seen = read(found, LIMIT)
        meanwhile()
        write_over(found, data, **{"mode": seen.mode, "owner": seen.owner, "seen": seen, "replaces": seen, **more})


def state(path: Path) -> tuple[bytes, int, int, int]:
    info = path.lstat()
    return path.read_bytes(), info.st_mode & 0o7777, info.st_uid, info.st_gid


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("data", [OLD.replace(b"1", b"2"), OLD + b"D=4\n", b"A=1\n", b"", OLD], ids=len)
def test_the_bytes_are_replaced_in_place(path: Path, data: bytes) -> None:
    number = path.stat().st_ino
    over(path, data)
    assert state(path) == (data, 0o640, OTHER, OTHER)
    assert path.stat().st_ino == number
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.usefixtures("full")
def test_without_it_nothing_can_be_written(path: Path) -> None:
    """Negative control."""
    with walk(path) as found, pytest.raises(ForeignError, match="No space left") as caught:
        write(found, b"A=2\n", mode=0o640, owner=(OTHER, OTHER))
    assert is_no_room(caught.value)
    assert state(path) == (OLD, 0o640, OTHER, OTHER)


def test_where_there_is_room_a_new_file_takes_the_name(path: Path) -> None:
    number = path.stat().st_ino
    over(path, b"A=2\n")
    assert state(path) == (b"A=2\n", 0o640, OTHER, OTHER)
    assert path.stat().st_ino != number


def test_another_error_is_no_reason_to_write_in_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise refused(errno.EACCES)

    monkeypatch.setattr(foreign_files, "_write_part", denied)
    with pytest.raises(ForeignError, match=r"Permission denied$"):
        over(path, b"A=2\n")
    assert path.read_bytes() == OLD


def test_attributes_that_do_not_fit_a_new_file_stay_with_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        os.setxattr(path, "user.note", b"x")
    except OSError:
        pytest.skip("the file system has no extended attributes")

    def none(*_: object) -> None:
        raise refused()

    monkeypatch.setattr(os, "setxattr", none)
    over(path, b"A=2\n")
    assert path.read_bytes() == b"A=2\n"
    assert os.getxattr(path, "user.note") == b"x"


# --- what is there is another file by now -------------------------------------------------------------------


def replaced(path: Path, kind: str, other: Path) -> None:
    if kind != "hard link to the file":
        path.unlink()
    if kind == "link":
        path.symlink_to(other)
    elif kind == "hard link":
        os.link(other, path)
    elif kind == "hard link to the file":
        os.link(path, path.with_name("second"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "another file":
        path.write_bytes(OLD)
        os.chown(path, OTHER, OTHER)


KINDS = ("link", "hard link", "hard link to the file", "pipe", "another file", "nothing")


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_the_file_that_was_read_is_left_alone(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    other = tmp_path / "other"
    other.write_bytes(OLD)
    os.chown(other, 0, 0)
    making = os.open
    monkeypatch.undo()

    def meanwhile() -> None:
        replaced(path, kind, other)
        monkeypatch.setattr(os, "open", making)

    with pytest.raises(ForeignError, match="nor can its bytes be replaced"):
        over(path, b"A=2\n", meanwhile)
    assert state(other) == (OLD, 0o644, 0, 0)
    assert kind not in ("hard link to the file", "another file") or path.read_bytes() == OLD


@pytest.mark.usefixtures("full")
def test_a_file_of_two_names_is_left_alone(path: Path) -> None:
    """They were there when it was read, both made by its owner."""
    os.link(path, path.with_name("second"))
    with pytest.raises(ForeignError, match=r"has 2 names \(hard links\)"):
        over(path, b"A=2\n")
    assert path.read_bytes() == OLD


@pytest.mark.usefixtures("full")
def test_a_swap_before_it_is_opened_is_seen_by_what_was_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = os.open

    def swapped(name: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags == foreign_files._OVER:
            path.with_name("kept").rename(path)
        return opening(name, flags, *arguments, **named)

    path.with_name("kept").write_bytes(OLD)
    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(ForeignError, match="was changed by somebody else"):
        over(path, b"A=2\n")
    assert path.read_bytes() == OLD


@pytest.mark.usefixtures("full")
def test_without_the_comparison_another_file_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(Content, "is_same", lambda _seen, _info: True)
    path.with_name("kept").write_bytes(OLD)
    over(path, b"A=2\n", lambda: path.with_name("kept").rename(path))
    assert path.read_bytes() == b"A=2\n"


# --- a write that fails -------------------------------------------------------------------------------------


def fails(monkeypatch: pytest.MonkeyPatch, name: str, at: int = 1) -> None:
    """Call number ``at`` of that function of ``os`` fails; writes write four bytes at most."""
    plain, writing = getattr(os, name), os.pwrite
    calls = [0]

    def call(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise refused()
        return plain(*arguments, **named)

    def slowly(descriptor: int, data: Any, where: int) -> int:
        return writing(descriptor, data[:4], where)

    if name == "pwrite":
        plain = slowly
    else:
        monkeypatch.setattr(os, "pwrite", slowly)
    monkeypatch.setattr(os, name, call)


STEPS = [("posix_fallocate", 1), ("pwrite", 1), ("pwrite", 3), ("ftruncate", 1), ("fchown", 1), ("fchmod", 1), ("fsync", 1)]


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(("name", "at"), STEPS)
def test_whatever_fails_is_undone(path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
    fails(monkeypatch, name, at)
    with pytest.raises(ForeignError, match="nor can its bytes be replaced: No space left"):
        over(path, b"X" * 50, mode=0o600, owner=(0, 0))
    assert state(path) == (OLD, 0o640, OTHER, OTHER)


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(("name", "at"), STEPS[2:])
def test_without_the_undoing_it_stays_half_written(path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """Negative control."""
    monkeypatch.setattr(files, "_undo", lambda *_: None)
    fails(monkeypatch, name, at)
    with pytest.raises(ForeignError):
        over(path, b"X" * 50, mode=0o600, owner=(0, 0))
    assert path.read_bytes() != OLD


@pytest.mark.usefixtures("full")
def test_old_bytes_are_not_given_to_a_new_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's file, which is being given to the user, cannot be taken back."""
    os.chown(path, 0, 0)
    fails(monkeypatch, "fchown", 2)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: (_ for _ in ()).throw(refused(errno.EIO)))
    with pytest.raises(ForeignError, match="Input/output error"):
        over(path, b"A=2\n", mode=0o600, owner=(OTHER, OTHER))
    assert b"their bytes" not in path.read_bytes()


@pytest.mark.usefixtures("full")
def test_a_guard_stops_it(path: Path) -> None:
    def guard() -> None:
        raise ForeignError("not now")

    with pytest.raises(ForeignError, match="nor can its bytes be replaced: not now"):
        over(path, b"A=2\n", guard=guard)
    assert path.read_bytes() == OLD


@pytest.mark.usefixtures("full")
def test_no_special_bit_and_no_capability_stays(path: Path) -> None:
    path.chmod(0o6755)
    try:
        os.setxattr(path, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    except OSError:
        pytest.skip("the file system has no capabilities")
    over(path, b"A=2\n", mode=0o6755)
    assert path.stat().st_mode & 0o7777 == 0o755
    assert "security.capability" not in os.listxattr(path)

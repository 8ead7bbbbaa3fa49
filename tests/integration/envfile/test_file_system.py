"""The file itself: links, modes, owners, attributes, full disks and other writers."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.envfile.corpus import KEY, NEW, OLD

from glitchtip_core import files
from glitchtip_cutover import envfile
from glitchtip_cutover.envfile import EnvFile
from glitchtip_cutover.errors import CutoverError

BEFORE = f"A=1\n{KEY}={OLD}\nB=2\n".encode()
AFTER = BEFORE.replace(OLD.encode(), NEW.encode())
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


def env_file(path: Path, data: bytes = BEFORE) -> EnvFile:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return EnvFile(path, KEY)


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(CutoverError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ links


@pytest.mark.parametrize("kind", ["relative", "absolute", "chain", "linked directory"])
def test_a_symbolic_link_stays_and_its_target_changes(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "common" / "env"
    env_file(target)
    link = tmp_path / "app" / ".env"
    link.parent.mkdir()
    if kind == "chain":
        (tmp_path / "app" / "middle").symlink_to("../common/env")
    if kind == "linked directory":
        (tmp_path / "app" / "current").symlink_to("../common")
    to = {
        "relative": "../common/env",
        "absolute": str(target),
        "chain": "middle",
        "linked directory": "current/env",
    }
    link.symlink_to(to[kind])
    assert EnvFile(link, KEY).replace(NEW) is True
    assert os.readlink(link) == to[kind]
    assert target.read_bytes() == AFTER
    assert not target.is_symlink()
    assert os.listdir(target.parent) == ["env"]


def test_a_dangling_link_is_refused_by_its_target(tmp_path: Path) -> None:
    link = tmp_path / ".env"
    link.symlink_to("gone")
    sentence = f"{link} is a symbolic link to {tmp_path}/gone, which does not exist"
    assert refusal(lambda: EnvFile(link, KEY).replace(NEW)) == sentence
    EnvFile(link, KEY).clean()


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    file = EnvFile(tmp_path / "a", KEY)
    assert refusal(lambda: file.replace(NEW)) == f"{tmp_path}/a is a symbolic link that leads back to itself"
    file.clean()


def test_a_second_name_of_the_file_is_refused_as_it_would_keep_the_old_value(tmp_path: Path) -> None:
    file = env_file(tmp_path / ".env")
    os.link(tmp_path / ".env", tmp_path / "other")
    assert refusal(lambda: file.replace(NEW)) == (
        f"{tmp_path}/.env has 2 names (hard links): the others would keep the old value, so remove them or make "
        "them symbolic links"
    )
    assert file.replace(OLD) is False
    assert (tmp_path / "other").read_bytes() == BEFORE
    # The way back does not hang on it: the recorded file is put in place of this name.
    file.restore(AFTER, *file.stat())
    assert ((tmp_path / ".env").read_bytes(), (tmp_path / "other").read_bytes()) == (AFTER, BEFORE)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(EnvFile(tmp_path / "pipe", KEY).value) == f"{tmp_path}/pipe is not a regular file"
    assert refusal(EnvFile(tmp_path, KEY).value) == f"{tmp_path} is not a regular file"


def test_a_file_that_no_env_file_is_as_large_as_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / ".env", "wb") as file:
        file.truncate(envfile.MAX_BYTES + 1)
    assert "16777217 bytes" in refusal(EnvFile(tmp_path / ".env", KEY).value)


# ------------------------------------------------------------------ modes, owners, attributes


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640, 0o664])
def test_the_mode_stays(tmp_path: Path, mode: int) -> None:
    file = env_file(tmp_path / ".env")
    (tmp_path / ".env").chmod(mode)
    file.replace(NEW)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == mode
    assert (tmp_path / ".env").read_bytes() == AFTER


@as_root
def test_another_owner_stays(tmp_path: Path) -> None:
    file = env_file(tmp_path / ".env")
    os.chown(tmp_path / ".env", 12345, 23456)
    (tmp_path / ".env").chmod(0o640)
    file.replace(NEW)
    info = (tmp_path / ".env").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (12345, 23456, 0o640)


def with_attributes(path: Path) -> dict[str, bytes]:
    """A user attribute, and as root an ACL for the user 12345."""
    import struct

    try:
        os.setxattr(path, "user.note", b"kept \x00 bytes")
        entries = [
            (1, 6, 0xFFFFFFFF),
            (2, 4, 12345),
            (4, 0, 0xFFFFFFFF),
            (16, 4, 0xFFFFFFFF),
            (32, 0, 0xFFFFFFFF),
        ]
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"this file system keeps no attributes: {error.strerror}")
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def test_extended_attributes_stay(tmp_path: Path) -> None:
    file = env_file(tmp_path / ".env")
    kept = with_attributes(tmp_path / ".env")
    assert {"user.note", "system.posix_acl_access"} <= kept.keys()
    file.replace(NEW)
    path = tmp_path / ".env"
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == kept
    assert path.read_bytes() == AFTER


def test_attributes_that_cannot_be_kept_stop_the_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = env_file(tmp_path / ".env")
    with_attributes(tmp_path / ".env")

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "setxattr", refuse)
    sentence = f"cannot write {tmp_path}/.env: its extended attributes cannot be kept"
    assert refusal(lambda: file.replace(NEW)) == sentence
    assert (tmp_path / ".env").read_bytes() == BEFORE
    assert os.listdir(tmp_path) == [".env"]


@as_root
def test_without_root_a_foreign_file_and_a_closed_directory_are_refused() -> None:
    # pytest's directories are closed to other users.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        refused_without_root(Path(place) / "app")


def refused_without_root(directory: Path) -> None:
    env_file(directory / ".env")
    os.chown(directory, 12345, 12345)
    directory.chmod(0o755)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from glitchtip_cutover.envfile import EnvFile\n"
        "from glitchtip_cutover.errors import CutoverError\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        "try:\n"
        "    EnvFile(Path(sys.argv[1]), sys.argv[2]).replace(sys.argv[3])\n"
        "except CutoverError as error:\n"
        "    print(error)\n"
    )

    def told() -> str:
        source = Path(envfile.__file__).parents[1]
        done = subprocess.run(
            [
                "/usr/bin/env",
                f"PYTHONPATH={source}",
                "python3",
                "-c",
                program,
                str(directory / ".env"),
                KEY,
                NEW,
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return done.stdout.strip()

    assert told() == f"cannot write {directory}/.env: Operation not permitted"
    directory.chmod(0o555)
    assert told() == f"cannot write {directory}/.env: its directory is not writable"
    (directory / ".env").chmod(0o600)
    assert told() == f"cannot read {directory}/.env: Permission denied"
    assert (directory / ".env").read_bytes() == BEFORE
    assert os.listdir(directory) == [".env"]


# ------------------------------------------------------------------ disks and other writers


@pytest.mark.parametrize("step", ["write", "fsync", "fchmod", "rename"])
def test_an_error_at_any_step_of_the_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = env_file(tmp_path / ".env")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    assert refusal(lambda: file.replace(NEW)) == f"cannot write {tmp_path}/.env: No space left on device"
    monkeypatch.undo()
    assert (tmp_path / ".env").read_bytes() == BEFORE
    assert os.listdir(tmp_path) == [".env"]


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = env_file(tmp_path / ".env")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    file.replace(NEW)
    assert (tmp_path / ".env").read_bytes() == AFTER


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    data = BEFORE + b"# " + b"x" * 40_000 + b"\n"
    file = env_file(small_disk / ".env", data)
    assert refusal(lambda: file.replace(NEW)) == f"cannot write {small_disk}/.env: No space left on device"
    assert (small_disk / ".env").read_bytes() == data
    assert os.listdir(small_disk) == [".env"]
    assert "No space left" in refusal(lambda: file.backup("20260101-0600"))
    assert os.listdir(small_disk) == [".env"]


def test_a_disk_that_is_read_only_leaves_the_old_file(small_disk: Path) -> None:
    file = env_file(small_disk / ".env")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert refusal(lambda: file.replace(NEW)).startswith(f"cannot write {small_disk}/.env: ")
    assert (small_disk / ".env").read_bytes() == BEFORE


def rewrite(path: Path) -> None:
    path.write_bytes(BEFORE + b"C=3\n")


def put_another(path: Path) -> None:
    (path.parent / "new").write_bytes(BEFORE)
    (path.parent / "new").rename(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "written in place": rewrite,
    "replaced": put_another,
    "removed": Path.unlink,
    "mode changed": lambda path: path.chmod(0o640),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_somebody_else_does_at_the_last_moment_is_noticed_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    path = tmp_path / ".env"
    file = env_file(path)
    flush = os.fsync
    seen: list[bytes | None] = []

    def meanwhile(descriptor: int) -> None:
        flush(descriptor)
        if not seen:
            change(path)
            seen.append(path.read_bytes() if path.exists() else None)

    monkeypatch.setattr(files.os, "fsync", meanwhile)
    told = refusal(lambda: file.replace(NEW))
    assert told.startswith(
        (f"{path} was changed by somebody else meanwhile", f"cannot write {path}: No such file")
    )
    assert (path.read_bytes() if path.exists() else None) == seen[0]
    assert not (tmp_path / ".env.part").exists()


def test_what_an_interrupted_write_left_is_taken_away(tmp_path: Path) -> None:
    file = env_file(tmp_path / "common" / "env")
    (tmp_path / ".env").symlink_to("common/env")
    (tmp_path / "common" / "env.part").write_bytes(b"half")
    EnvFile(tmp_path / ".env", KEY).clean()
    assert os.listdir(tmp_path / "common") == ["env"]
    assert file.read() == BEFORE

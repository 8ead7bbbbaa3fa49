"""Root in another user's directory: where a path really leads, what is read and written there, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from glitchtip_core import foreign_files
from glitchtip_core.errors import CoreError
from glitchtip_core.foreign_files import (
    first_bytes,
    is_file,
    is_program,
    list_directory,
    open_socket,
    read,
    read_file,
    read_text,
    set_aside,
    write,
)
from glitchtip_core.foreign_paths import ForeignError, controllers_of, real_path, walk
from glitchtip_core.process import Completed, Identity, run

OTHER = 54321
LIMIT = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")


def give(*paths: Path) -> None:
    """Make them the other user's, links themselves."""
    for path in paths:
        os.lchown(path, OTHER, OTHER)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """The other user's directory with a file of that user."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    (directory / "file").write_text("their bytes")
    give(directory, directory / "file")
    return directory


# --- paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a/b/file", "link/file", "a/../a/b/./file", "chain", "up/file", "absolute"])
def test_a_walk_ends_where_the_kernel_would(tmp_path: Path, path: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "chain").symlink_to("link/../b/file")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "up").symlink_to("a/up/a/b")
    (tmp_path / "absolute").symlink_to(tmp_path / "link" / "file")
    assert real_path(tmp_path / path) == Path(os.path.realpath(tmp_path / path))
    assert read_file(tmp_path / path, LIMIT).data == b"x"


def test_a_link_that_leads_to_itself_and_one_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "gone").symlink_to("absent/file")
    with pytest.raises(OSError, match="Too many levels"):
        walk(tmp_path / "a")
    with pytest.raises(FileNotFoundError) as caught:
        walk(tmp_path / "gone")
    assert caught.value.filename == str(tmp_path / "absent" / "file")
    assert real_path(tmp_path / "gone") == tmp_path / "gone"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("loop", "absent/x", "pipe", "..", "."):
        read_text(tmp_path / name, LIMIT)
        is_program(tmp_path / name)
        list_directory(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == before


@needs_root
def test_another_users_link_leads_only_to_what_that_user_owns(tmp_path: Path, theirs: Path) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    (roots / "file").write_text("root's bytes")
    for name, target in (("in", "file"), ("out", roots / "file"), ("directory", roots)):
        (theirs / name).symlink_to(target)
        give(theirs / name)
    (theirs / "of_root").symlink_to(roots / "file")
    assert read_text(theirs / "in", LIMIT) == "their bytes"
    assert read_text(theirs / "of_root", LIMIT) == "root's bytes"
    for name in ("out", "directory/file"):
        with pytest.raises(ForeignError, match=r"chown -h root .*theirs/(out|directory)$"):
            read_file(theirs / name, LIMIT)
        with walk(theirs / name) as found, pytest.raises(ForeignError):
            write(found, b"x", mode=0o644, owner=(0, 0))
        assert not is_file(theirs / name)
    assert list_directory(theirs / "directory") == []
    assert (roots / "file").read_text() == "root's bytes"
    assert os.listdir(roots) == ["file"]


@needs_root
def test_another_users_link_may_be_read_where_everybody_may_read_and_is_never_written() -> None:
    """``~/bin/node`` that is a link to ``/usr/bin/node``, a shim of a version manager."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "program").write_text("#!/bin/sh\n")
        (base / "program").chmod(0o755)
        (base / "theirs").mkdir()
        (base / "theirs" / "link").symlink_to("../program")
        give(base / "theirs", base / "theirs" / "link")
        assert read_text(base / "theirs" / "link", LIMIT) == "#!/bin/sh\n"
        assert is_file(base / "theirs" / "link")
        (base / "theirs" / "directory").symlink_to("..")
        give(base / "theirs" / "directory")
        assert list_directory(base / "theirs" / "directory") == []  # what is in it is not for everybody
        with walk(base / "theirs" / "link") as found, pytest.raises(ForeignError):
            write(found, b"x", mode=0o755, owner=(0, 0))
        (base / "program").chmod(0o750)
        assert read_text(base / "theirs" / "link", LIMIT) is None
        (base / "program").chmod(0o755)
        base.chmod(0o700)
        assert read_text(base / "theirs" / "link", LIMIT) is None


@needs_root
def test_a_refused_write_takes_nothing_away_where_it_was_led(tmp_path: Path, theirs: Path) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    (roots / "file.part").write_text("root's")
    (theirs / "directory").symlink_to(roots)
    give(theirs / "directory")
    with walk(theirs / "directory" / "file") as found:
        for act in (
            lambda: write(found, b"x", mode=0o600, owner=(0, 0)),
            lambda: foreign_files.remove(found, "file.part"),
            lambda: set_aside(found, "moved"),
        ):
            with pytest.raises(ForeignError):
                act()
    assert (roots / "file.part").read_text() == "root's"


@needs_root
def test_who_can_change_what_is_at_a_path(tmp_path: Path, theirs: Path) -> None:
    (theirs / "inner").mkdir()
    (theirs / "inner" / "compose.yml").touch()
    (tmp_path / "of_root").touch()
    (tmp_path / "linked").symlink_to("of_root")
    give(tmp_path / "linked")
    assert controllers_of(theirs / "inner" / "compose.yml") == {OTHER}
    assert controllers_of(tmp_path / "linked") == {OTHER}
    assert controllers_of(tmp_path / "of_root") == controllers_of(tmp_path / "absent" / "x") == set()


# --- places -------------------------------------------------------------------------------------------------


def test_a_place_differs_by_its_path_its_directory_and_its_owner(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "file").touch()
    with walk(tmp_path / "5" / "file") as found:
        place = found.place()
    assert place.difference(place) == ""
    moved = dataclasses.replace(place, directory=str(tmp_path / "6"))
    assert place.difference(moved) == f"is really {tmp_path}/6/file now, and was {tmp_path}/5/file when it was recorded"
    for change in ({"inode": 1}, {"owner": OTHER}, {"device": os.makedev(8, 250)}):
        assert "was replaced" in place.difference(dataclasses.replace(place, **change))
    assert "belongs to 54322 now" in place.difference(dataclasses.replace(place, file_owner=54322))


def test_a_device_number_counts_within_one_boot_only(tmp_path: Path) -> None:
    with walk(tmp_path / "file") as found:
        place = found.place()
    another = os.makedev(8, 250)
    assert place.difference(dataclasses.replace(place, device=another, boot="another")) == ""
    assert place.difference(dataclasses.replace(place, inode=1, boot="another"))


def test_an_anonymous_device_number_changes_at_each_mount_and_does_not_decide(tmp_path: Path) -> None:
    """Overlay, NFS, btrfs, ZFS, FUSE, tmpfs: their major number is 0."""
    with walk(tmp_path / "file") as found:
        place = dataclasses.replace(found.place(), device=os.makedev(0, 40))
    assert place.difference(dataclasses.replace(place, device=os.makedev(0, 41))) == ""
    # Controls: everything else still decides, and so does a number of a disk.
    assert place.difference(dataclasses.replace(place, device=os.makedev(0, 41), inode=1))
    assert place.difference(dataclasses.replace(place, device=os.makedev(0, 41), owner=OTHER))
    assert place.difference(dataclasses.replace(place, device=os.makedev(8, 1)))
    disk = dataclasses.replace(place, device=os.makedev(8, 1))
    assert disk.difference(dataclasses.replace(disk, device=os.makedev(8, 2)))
    assert disk.difference(dataclasses.replace(disk, device=os.makedev(0, 41)))


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "directory", "socket"])
def test_only_regular_files_are_read_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    with pytest.raises(ForeignError, match=f"{path} is not a regular file"):
        read_file(path, LIMIT)


def test_a_limit_holds(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 11)
    assert len(read_file(tmp_path / "x", 11).data) == 11
    with pytest.raises(ForeignError, match="11 bytes, too many"):
        read_file(tmp_path / "x", 10)


@needs_root
def test_a_second_name_is_read_only_where_nobody_else_could_have_made_it(tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "secret").write_text("root's bytes")
    os.link(tmp_path / "secret", theirs / "linked")
    with pytest.raises(ForeignError, match="2 names"):
        read_file(theirs / "linked", LIMIT)
    os.link(theirs / "file", theirs / "own")
    assert read_text(theirs / "own", LIMIT) == "their bytes"
    os.link(theirs / "file", tmp_path / "given")
    assert read_text(tmp_path / "given", LIMIT) == "their bytes"
    tmp_path.chmod(0o1777)
    assert read_text(tmp_path / "given", LIMIT) is None


@needs_root
def test_bytes_mode_owner_and_attributes_are_of_one_file(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A swap after the opening changes nothing of what was read."""
    path = theirs / "file"
    path.chmod(0o640)
    opened = os.open

    def swapped(name: str, flags: int, *more: int, **named: int) -> int:
        descriptor = opened(name, flags, *more, **named)
        if name == "file" and path.read_text() == "their bytes":
            path.unlink()
            path.write_text("another")
            path.chmod(0o4755)
        return descriptor

    monkeypatch.setattr(os, "open", swapped)
    seen = read_file(path, LIMIT)
    assert (seen.data, seen.mode, seen.owner) == (b"their bytes", 0o640, (OTHER, OTHER))


@needs_root
def test_the_first_bytes_of_a_program_with_several_names_are_compared(tmp_path: Path, theirs: Path) -> None:
    """pnpm links each program from its store, in directories that a group may write."""
    (theirs / "program").write_text("#!/usr/bin/env node\n")
    give(theirs / "program")
    os.link(theirs / "program", theirs / "in_the_store")
    theirs.chmod(0o775)
    assert first_bytes(theirs / "program", 11) == b"#!/usr/bin/"
    with pytest.raises(ForeignError, match="2 names"):  # the control: what is kept is not read
        read_file(theirs / "program", LIMIT)
    (tmp_path / "secret").write_text("root's bytes")
    (tmp_path / "secret").chmod(0o600)
    (theirs / "link").symlink_to(tmp_path / "secret")
    give(theirs / "link")
    with pytest.raises(ForeignError, match="by a symbolic link of that user"):
        first_bytes(theirs / "link", 11)


@needs_root
@pytest.mark.parametrize("kind", ["link", "link to nothing", "file"])
def test_no_name_in_a_directory_leads_elsewhere_when_the_directory_is_opened(tmp_path: Path, theirs: Path, kind: str) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    (roots / "secret").touch()
    if kind == "file":
        (theirs / "_").touch()
    else:
        (theirs / "_").symlink_to(roots / "secret" if kind == "link" else roots / "absent" / "x")
        give(theirs / "_")
    assert list_directory(theirs) == ["_", "file"]


# --- attributes -----------------------------------------------------------------------------------------------

#: A default ACL that lets another user read and write (linux/posix_acl_xattr.h): version 2, then tag, rights and id of each entry.
_ACL = ((1, 7, -1), (2, 7, 54322), (4, 5, -1), (0x10, 7, -1), (0x20, 0, -1))
DEFAULT_ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in _ACL)
ACCESS = "system.posix_acl_access"


@pytest.fixture
def shared(theirs: Path) -> Path:
    """The other user's directory with a default ACL; ``file`` was there before it."""
    try:
        os.setxattr(theirs, "system.posix_acl_default", DEFAULT_ACL)
    except OSError as error:
        pytest.skip(f"no ACL can be set here: {error.strerror}")
    (theirs / "probe").touch()
    assert ACCESS in os.listxattr(theirs / "probe"), "the control: a new file inherits it"
    (theirs / "probe").unlink()
    return theirs


@needs_root
@pytest.mark.parametrize("kept", [True, False], ids=["edited", "put back"])
def test_a_new_file_has_no_rights_that_its_directory_would_give(shared: Path, kept: bool) -> None:
    (shared / "file").chmod(0o640)
    with walk(shared / "file") as found:
        seen = read(found, LIMIT)
        write(found, b"new", mode=0o640, owner=(OTHER, OTHER), replaces=seen if kept else None)
    assert (shared / "file").read_bytes() == b"new"
    assert ACCESS not in os.listxattr(shared / "file")
    assert stat.S_IMODE((shared / "file").stat().st_mode) == 0o640


@needs_root
def test_rights_that_a_file_has_itself_are_kept(shared: Path) -> None:
    os.setxattr(shared / "file", ACCESS, DEFAULT_ACL)
    with walk(shared / "file") as found:
        seen = read(found, LIMIT)
        write(found, b"new", mode=seen.mode, owner=(OTHER, OTHER), replaces=seen)
    assert os.getxattr(shared / "file", ACCESS) == seen.attributes[ACCESS]


@needs_root
def test_without_the_removal_an_edit_fails_and_the_rehearsal_says_so(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control, and what the rehearsal is for."""
    with walk(shared / "file") as found:
        seen = read(found, LIMIT)
        foreign_files.rehearse_write(found, seen)
        assert os.listdir(shared) == ["file"]
        monkeypatch.setattr(foreign_files, "_drop_inherited", lambda *_: None)
        with pytest.raises(ForeignError, match="extended attributes cannot be kept"):
            foreign_files.rehearse_write(found, seen)
        with pytest.raises(ForeignError, match="extended attributes cannot be kept"):
            write(found, b"new", mode=0o640, owner=(OTHER, OTHER), replaces=seen)
    assert os.listdir(shared) == ["file"]


# --- writing ------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1644])
def test_special_bits_are_never_kept(theirs: Path, mode: int) -> None:
    (theirs / "file").chmod(mode)
    with walk(theirs / "file") as found:
        seen = read(found, LIMIT)
        write(found, b"new", mode=mode, owner=(0, 0), replaces=seen)
    info = (theirs / "file").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (mode & 0o777, 0)
    assert seen.mode == mode & 0o777


def test_a_capability_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("x")
    try:
        # cap_net_raw, permitted and effective, revision 2 (linux/capability.h)
        os.setxattr(path, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    except OSError as error:
        pytest.skip(f"no capabilities can be set here: {error.strerror}")
    with walk(path) as found:
        write(found, b"y", mode=0o755, owner=(os.geteuid(), os.getegid()), replaces=read(found, LIMIT))
    assert "security.capability" not in os.listxattr(path)


@pytest.mark.parametrize("kind", ["symlink", "pipe", "file"])
def test_what_stands_where_the_new_file_is_made_is_not_followed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_text("root's bytes")
    part = tmp_path / "file.part"
    if kind == "symlink":
        part.symlink_to("secret")
    elif kind == "pipe":
        os.mkfifo(part)
    else:
        part.write_text("left over")
    with walk(tmp_path / "file") as found:
        write(found, b"new", mode=0o600, owner=(os.geteuid(), os.getegid()))
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "secret").read_text() == "root's bytes"
    assert sorted(os.listdir(tmp_path)) == ["file", "secret"]


def test_a_swap_just_before_the_name_is_given_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root's bytes")

    def guard() -> None:
        (tmp_path / "file.part").unlink()
        (tmp_path / "file.part").symlink_to("secret")

    with walk(tmp_path / "file") as found, pytest.raises(ForeignError, match="was changed by somebody else"):
        write(found, b"new", mode=0o600, owner=(os.geteuid(), os.getegid()), guard=guard)
    assert (tmp_path / "secret").read_text() == "root's bytes"


def test_something_is_set_aside_unread_and_overwrites_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    (tmp_path / "taken").touch()
    with walk(tmp_path / "file") as found:
        with pytest.raises(FileExistsError):
            set_aside(found, "taken")
        set_aside(found, "free")
    assert stat.S_ISFIFO((tmp_path / "free").lstat().st_mode)
    assert not (tmp_path / "file").exists()


# --- sockets and directories --------------------------------------------------------------------------------


@needs_root
def test_a_socket_is_reached_by_what_was_looked_at(tmp_path: Path, theirs: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "roots"))
        server.listen()
        with open_socket(tmp_path / "roots") as address, socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
        (theirs / "link").symlink_to(tmp_path / "roots")
        give(theirs / "link")
        with pytest.raises(ForeignError), open_socket(theirs / "link"):
            pass
        os.link(tmp_path / "roots", theirs / "second")
        for name in ("second", "file", "absent"):
            with pytest.raises(FileNotFoundError), open_socket(theirs / name):
                pass


@needs_root
def test_a_child_gets_into_no_directory_that_is_closed_to_its_user() -> None:
    """``subprocess`` would go there as root, and the child could read below a directory of mode 700."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        for place in (base / "closed" / "inner", base / "open"):
            place.mkdir(parents=True)
            (place / "file").write_text("bytes")
        (base / "closed").chmod(0o700)

        def cat(place: Path) -> Completed:
            other = Identity(OTHER, OTHER)
            return run(["/bin/cat", "file"], environment={"PATH": "/bin"}, timeout=10, identity=other, cwd=place)

        assert cat(base / "open").output == "bytes"
        with pytest.raises(CoreError, match=rf"cat cannot be run in {base}/closed/inner: Permission denied"):
            cat(base / "closed" / "inner")
        argv = ["/bin/cat", "file"]
        unprotected = subprocess.run(
            argv, cwd=base / "closed" / "inner", user=OTHER, group=OTHER, extra_groups=[], capture_output=True, check=True
        )
        assert unprotected.stdout == b"bytes"

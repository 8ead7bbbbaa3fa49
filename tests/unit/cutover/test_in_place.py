"""A file of the product on a full disk: a rollback replaces its bytes, and never loses them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.full_disk import SmallDisk, small_disk
from unit.cutover.simulation import KEY, NEW, OLD, Simulation

from glitchtip_core import files
from glitchtip_core.files import write_over
from glitchtip_cutover import envfile
from glitchtip_cutover.envfile import EnvFile
from glitchtip_cutover.errors import CutoverError, IncompleteError

LONG = f"A=1\n{KEY}={NEW}\n# {'x' * 3900}\nB=2\n".encode()


@pytest.fixture
def product(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "app", "12k") as disk:
        yield disk


def full_env(disk: SmallDisk, data: bytes = LONG) -> EnvFile:
    path = disk.place / ".env"
    path.write_bytes(data)
    path.chmod(0o640)
    disk.fill("bytes")
    return EnvFile(path, KEY)


@pytest.mark.parametrize("value", [OLD, NEW + "1", "http://a@b/1"], ids=["other", "longer", "shorter"])
def test_the_value_is_replaced_on_a_full_disk(product: SmallDisk, value: str) -> None:
    file = full_env(product)
    number = file.path.stat().st_ino
    assert file.replace(value, in_place=True) is True
    assert file.read() == LONG.replace(NEW.encode(), value.encode())
    info = file.path.stat()
    assert (info.st_ino, info.st_mode & 0o7777) == (number, 0o640)
    assert sorted(os.listdir(product.place)) == [".env", "filler"]


def test_without_the_fallback_it_is_refused(product: SmallDisk) -> None:
    """Negative control."""
    file = full_env(product)
    with pytest.raises(CutoverError, match="No space left"):
        file.replace(OLD)
    assert file.read() == LONG


def test_a_text_that_does_not_fit_leaves_every_byte(product: SmallDisk) -> None:
    data = LONG + b"#" * (4096 - len(LONG) - 1) + b"\n"  # fills its block: one byte more needs another one
    file = full_env(product, data)
    with pytest.raises(CutoverError, match="nor can its bytes be replaced: No space left"):
        file.replace(NEW + "1", in_place=True)
    assert file.read() == data
    assert len(data) == 4096


def test_a_write_that_fails_half_way_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_bytes(LONG)
    write = os.pwrite
    left = [3]

    def torn(descriptor: int, data: Any, at: int) -> int:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:10], at)

    monkeypatch.setattr(files, "write_new", lambda *_, **__: no_room())
    monkeypatch.setattr(os, "pwrite", torn)
    with pytest.raises(CutoverError, match="nor can its bytes be replaced"):
        write_over(path, LONG.replace(NEW.encode(), OLD.encode() * 3))
    assert path.read_bytes() == LONG


def no_room() -> None:
    raise CutoverError("cannot write") from OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_what_is_no_file_of_one_name_is_never_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, other = tmp_path / ".env", tmp_path / "other"
    other.write_bytes(LONG)
    if kind == "link":
        path.symlink_to(other)
    elif kind == "hard link":
        os.link(other, path)
    else:
        os.mkfifo(path)
    monkeypatch.setattr(files, "write_new", lambda *_, **__: no_room())
    with pytest.raises(CutoverError, match="nor can its bytes be replaced"):
        write_over(path, b"A=1\n")
    assert other.read_bytes() == LONG


def test_what_somebody_else_writes_meanwhile_stays(product: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = full_env(product)
    reading = envfile.read

    def meanwhile(*arguments: Any) -> Any:
        seen = reading(*arguments)
        file.path.write_bytes(b"A=2\n")
        return seen

    monkeypatch.setattr(envfile, "read", meanwhile)
    with pytest.raises(CutoverError, match=r"nor can its bytes be replaced: .* was changed by somebody else"):
        file.replace(OLD, in_place=True)
    assert file.read() == b"A=2\n"


def test_another_error_than_a_full_disk_is_no_reason_to_write_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_bytes(LONG)

    def denied(*_: object, **__: object) -> None:
        raise CutoverError("cannot write") from OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "write_new", denied)
    with pytest.raises(CutoverError, match=r"^cannot write$"):
        write_over(path, b"A=1\n")
    assert path.read_bytes() == LONG


def test_a_rollback_restores_a_product_whose_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "app", "64k") as disk:
        world = Simulation(tmp_path / "app", state_dir=str(tmp_path / "state"))
        for command in ("snapshot", "apply", "confirm"):
            getattr(world.cutover(), command)()
        disk.fill("bytes")
        assert world.cutover().rollback()["state"] == "rolled_back"
        assert set(world.uses().values()) == {OLD}


def test_without_the_replacement_it_stays_switched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    with small_disk(tmp_path / "app", "64k") as disk:
        world = Simulation(tmp_path / "app", state_dir=str(tmp_path / "state"))
        for command in ("snapshot", "apply", "confirm"):
            getattr(world.cutover(), command)()
        disk.fill("bytes")

        def write(found: Any, data: bytes, **named: Any) -> None:
            del named["seen"]
            envfile.write(found, data, **named)

        monkeypatch.setattr(envfile, "write_over", write)
        with pytest.raises(IncompleteError, match="No space left"):
            world.cutover().rollback()
        assert NEW in world.uses().values()


def test_a_damaged_file_is_restored_from_the_snapshot_and_kept_where_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "app", "64k") as disk:
        world = Simulation(tmp_path / "app", state_dir=str(tmp_path / "state"))
        for command in ("snapshot", "apply", "confirm"):
            getattr(world.cutover(), command)()
        world.env_file.write_text(f"{KEY}={NEW}\n{KEY}={NEW}\n")
        disk.fill("bytes")
        world.cutover().rollback()
        assert set(world.uses().values()) == {OLD}
        kept = [path.read_text() for path in (tmp_path / "state").glob("damaged-*")]
        assert kept == [f"{KEY}={NEW}\n{KEY}={NEW}\n"]


def test_a_file_that_cannot_be_read_is_set_aside_and_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Simulation(tmp_path, state_dir=str(tmp_path / "state"))
    for command in ("snapshot", "apply", "confirm"):
        getattr(world.cutover(), command)()
    reading, bad = envfile.read, world.env_file.stat().st_ino

    def read(found: Any, *arguments: Any) -> Any:
        if found.stat().st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return reading(found, *arguments)

    monkeypatch.setattr(envfile, "read", read)
    world.cutover().rollback()
    assert set(world.uses().values()) == {OLD}
    assert [path.stat().st_ino for path in world.env_file.parent.glob(".env.damaged-*")] == [bad]

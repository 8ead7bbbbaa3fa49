"""Files in other users' directories: nobody leads the program to a file that he could not read himself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glitchtip_core import foreign_files
from glitchtip_core.foreign_search import find_files, read_foreign

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
OTHER = 65534


def everything(_name: str) -> bool:
    return True


def names(root: Path, **options: int) -> list[str]:
    found = find_files(root, everything, lambda name: name != "node_modules", options.pop("depth", 3), **options)
    return [str(each.path.relative_to(root)) for each in found if not each.problem]


def test_directories_are_searched_in_order_to_their_depth_and_some_never(tmp_path: Path) -> None:
    for name in ("a/b/c/d/.env", "node_modules/x/.env", ".env", "z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("A=1\n")
    assert names(tmp_path) == [".env", "z"]
    assert names(tmp_path, depth=4) == [".env", "z", "a/b/c/d/.env"]


def test_links_to_directories_are_not_entered_and_the_root_may_be_one(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "inner" / ".env").write_text("A=1\n")
    (tmp_path / "current").symlink_to("real")
    (tmp_path / "real" / "loop").symlink_to("..")
    assert names(tmp_path / "current") == ["inner/.env"]


def test_pipes_binaries_and_directories_are_no_files_and_nothing_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"a\0b")
    assert [read_foreign(tmp_path / name) for name in ("pipe", "binary", "absent", ".")] == [None] * 4


def test_a_file_that_is_too_large_is_named_and_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"x" * 101)
    found = read_foreign(tmp_path / ".env", 100)
    assert found is not None
    assert "101 bytes" in found.problem
    assert found.text == ""


def test_a_search_with_too_many_directories_ends_and_says_so(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").mkdir()
    (tmp_path / ".env").write_text("A=1\n")
    found = list(find_files(tmp_path, everything, everything, 1, directories=10))
    assert [each.text for each in found if not each.problem] == ["A=1\n"]
    told = f"{tmp_path} holds more than 10 directories: not all of its files were compared"
    assert [each.problem for each in found if each.problem] == [told]


def test_a_directory_full_of_data_hides_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("uploads/x", "z"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ".env").write_text("A=1\n")
    for number in range(2100):
        (tmp_path / "uploads" / f"{number}.png").touch()
    assert [name for name in names(tmp_path) if not name.endswith(".png")] == ["z/.env"]


@needs_root
def test_a_link_of_another_user_leads_to_his_own_files_only(tmp_path: Path) -> None:
    secret, his = tmp_path / "secret", tmp_path / "his"
    secret.write_text("SENTRY_DSN=https://k@s.example.org/1\n")
    his.write_text("A=1\n")
    os.chown(his, OTHER, OTHER)
    for name, target in (("to_secret", secret), ("to_his", his)):
        (tmp_path / name).symlink_to(target)
        os.lchown(tmp_path / name, OTHER, OTHER)
    (tmp_path / "of_root").symlink_to(secret)
    refused = read_foreign(tmp_path / "to_secret")
    assert refused is not None
    assert "which is not of user" in refused.problem
    assert refused.text == ""
    for name in ("to_his", "of_root"):
        read = read_foreign(tmp_path / name)
        assert read is not None
        assert read.text
        assert not read.problem


def test_a_file_that_becomes_a_link_while_it_is_opened_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, name = tmp_path / "secret", tmp_path / ".env"
    secret.write_text("SECRET=1\n")
    name.write_text("A=1\n")
    real = os.stat

    def swapped(path: str | Path, **options: object) -> os.stat_result:
        result = real(path, **options)  # type: ignore[arg-type]
        if path == name.name:
            name.unlink()
            name.symlink_to(secret)
        return result

    monkeypatch.setattr(foreign_files.os, "stat", swapped)
    found = read_foreign(name)
    assert found is not None
    assert found.text == ""
    assert found.problem


def test_a_link_to_nothing_and_one_to_itself(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("absent")
    (tmp_path / "loop").symlink_to("loop")
    assert read_foreign(tmp_path / "gone") is None
    loop = read_foreign(tmp_path / "loop")
    assert loop is not None
    assert "itself" in loop.problem

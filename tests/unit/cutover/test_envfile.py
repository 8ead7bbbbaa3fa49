"""One value of a .env file changes, every other byte stays; what could be read in two ways is refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glitchtip_cutover.envfile import EnvFile, find_assignment, replace_value
from glitchtip_cutover.errors import CutoverError

OLD = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@old.example.org/1"
NEW = "http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@127.0.0.1:8080/22"

# name, template, and which readers other than ours agree with it (Node.js 20 keeps trailing blanks)
GOOD = [
    ("plain", "A=1\nSENTRY_DSN={}\nB=2\n", "node sh"),
    ("crlf", "A=1\r\nSENTRY_DSN={}\r\nB=2\r\n", "node"),
    ("bom", "\ufeffA=1\nSENTRY_DSN={}\n", "node"),
    ("bom on its line", "\ufeffSENTRY_DSN={}\n", ""),
    ("double quotes", 'SENTRY_DSN="{}"\n', "node sh"),
    ("single quotes", "SENTRY_DSN='{}'\n", "node sh"),
    ("backquotes", "SENTRY_DSN=`{}`\n", "node"),
    ("export", "export SENTRY_DSN={}\n", "node sh"),
    ("indented", "  SENTRY_DSN={}\n", "node sh"),
    ("spaces", "SENTRY_DSN = {}\n", "node"),
    ("comment", "SENTRY_DSN={} # tracker\n", "node sh"),
    ("quotes and comment", 'SENTRY_DSN="{}"  # "x"\n', "node sh"),
    ("trailing blanks", "SENTRY_DSN={}  \t\n", "sh"),
    ("no final newline", "A=1\nSENTRY_DSN={}", "node sh"),
    ("similar names", "PUBLIC_SENTRY_DSN=x\nSENTRY_DSN_2=y\n#SENTRY_DSN=z\nSENTRY_DSN={}\n", "node sh"),
    ("value names it", 'NOTE="SENTRY_DSN=x"\nSENTRY_DSN={}\n', "node sh"),
    ("multi-line value", 'KEY="one\ntwo\nthree"\nSENTRY_DSN={}\n', "node sh"),
    ("odd quote inside", "GREETING=it's\nSENTRY_DSN={}\n", "node"),
    ("umlauts", "NAME=Käse\nSENTRY_DSN={}\nÜ=1\n", "node"),
    ("junk lines", "???\n=x\nSENTRY_DSN={}\n", "node"),
]

BAD = [
    ("absent", b"A=1\n", "holds no SENTRY_DSN"),
    ("empty file", b"", "holds no SENTRY_DSN"),
    ("commented", b"# SENTRY_DSN=x\n", "holds no SENTRY_DSN"),
    ("two", b"SENTRY_DSN=a\nB=1\nSENTRY_DSN=b\n", "2 times (lines 1 and 3)"),
    ("two with export", b"SENTRY_DSN=a\nexport SENTRY_DSN=a\n", "2 times"),
    ("latin-1", b"A=\xe4\nSENTRY_DSN=a\n", "not UTF-8 text (byte 2)"),
    ("utf-16", "SENTRY_DSN=a\n".encode("utf-16"), "not UTF-8"),
    ("nul", b"A=\x00\nSENTRY_DSN=a\n", "NUL byte"),
    ("old mac", b"A=1\rSENTRY_DSN=a\r", "carriage return"),
    ("colon", b"SENTRY_DSN: a\n", "colon"),
    ("open quote", b"SENTRY_DSN='a\nB=1\n", "is not closed"),
    ("quote closes later", b'SENTRY_DSN="a\nB="1"\n', "is not closed"),
    ("two words", b"SENTRY_DSN=a b\n", "unexpected text"),
    ("text after quotes", b'SENTRY_DSN="a"b\n', "unexpected text"),
    ("swallowed", b'KEY="one\nSENTRY_DSN=a\ntwo"\n', "inside a quoted value that opens on line 1"),
    ("swallowed by a slip", b"NAME='x\nSENTRY_DSN=a\nB='y'\n", "inside a quoted value"),
]


@pytest.mark.parametrize(("template", "readers"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_changes_one_value_and_nothing_else(template: str, readers: str, tmp_path: Path) -> None:
    before = template.replace("{}", OLD).encode()
    after = replace_value(before, "SENTRY_DSN", NEW)
    assert after == template.replace("{}", NEW).encode()
    assert find_assignment(after, "SENTRY_DSN").value == NEW
    assert replace_value(after, "SENTRY_DSN", OLD) == before
    file = tmp_path / ".env"
    file.write_bytes(after)
    if "node" in readers:
        assert read_by_node(file) == NEW
    if "sh" in readers:
        assert read_by_shell(file) == NEW


def read_by_node(file: Path) -> str:
    """What Node.js 20 reads with --env-file."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js here to compare with")
    script = "process.stdout.write(process.env.SENTRY_DSN ?? '-')"
    return subprocess.check_output(
        [node, f"--env-file={file}", "-e", script], text=True, env={"PATH": os.environ["PATH"]}
    )


def read_by_shell(file: Path) -> str:
    """What a POSIX shell reads by sourcing."""
    return subprocess.check_output(["sh", "-c", f'. "{file}"; printf %s "$SENTRY_DSN"'], text=True, env={})


@pytest.mark.parametrize(("data", "sentence"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_refuses_what_is_unclear_in_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(CutoverError) as caught:
        replace_value(data, "SENTRY_DSN", NEW, "/x/.env")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("/x/.env")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "a b", "a#b", "a'b", "a\nb", "$HOME", "a\\b"])
def test_refuses_a_value_that_would_need_quotes(value: str) -> None:
    with pytest.raises(CutoverError, match="quote"):
        replace_value(b"SENTRY_DSN=x\n", "SENTRY_DSN", value)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o644])
def test_keeps_mode_owner_and_symbolic_link(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "shared" / "env"
    target.parent.mkdir()
    target.write_text(f"SENTRY_DSN={OLD}\n")
    if os.geteuid() == 0:
        os.chown(target, 12345, 23456)
    target.chmod(mode)
    link = tmp_path / ".env"
    link.symlink_to("shared/env")
    file = EnvFile(link, "SENTRY_DSN")
    owner = file.stat()[1]
    assert file.replace(NEW) is True
    assert link.is_symlink()
    assert target.read_text() == f"SENTRY_DSN={NEW}\n"
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert file.stat()[1] == owner
    assert file.replace(NEW) is False
    assert os.listdir(target.parent) == ["env"]


@pytest.mark.slow
def test_large_file(tmp_path: Path) -> None:
    filler = "".join(f"V{number}='{number}'\n" for number in range(20000))
    path = tmp_path / ".env"
    path.write_text(f"{filler}SENTRY_DSN={OLD}\n{filler}")
    EnvFile(path, "SENTRY_DSN").replace(NEW)
    assert path.read_text() == f"{filler}SENTRY_DSN={NEW}\n{filler}"


def test_backup_is_written_once_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("SENTRY_DSN=one\n")
    path.chmod(0o640)
    file = EnvFile(path, "SENTRY_DSN")
    first = file.backup("20260101-0600")
    assert first.name == ".env.pre-glitchtip-20260101-0600"
    assert file.backup("20260101-0600") == first
    assert stat.S_IMODE(first.stat().st_mode) == 0o640
    path.write_text("SENTRY_DSN=two\n")
    second = file.backup("20260101-0600")
    assert (first.read_text(), second.read_text()) == ("SENTRY_DSN=one\n", "SENTRY_DSN=two\n")


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CutoverError, match=r"there is no file .*/\.env$"):
        EnvFile(tmp_path / ".env", "SENTRY_DSN").replace(NEW)


def test_read_only_directory_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_text(f"SENTRY_DSN={OLD}\n")

    opened = os.open

    def refuse(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CutoverError, match="Read-only file system"):
        EnvFile(path, "SENTRY_DSN").replace(NEW)
    monkeypatch.undo()
    assert path.read_text() == f"SENTRY_DSN={OLD}\n"


# ------------------------------------------------------------------ whatever a file may hold

WORDS = st.sampled_from([
    "SENTRY_DSN=", "SENTRY_DSN", "export ", "A=", "PUBLIC_SENTRY_DSN=", "'", '"', "`", "\\", "#", " ", "\t", "\n", "\r\n",
    "\r", "\x00", "\ufeff", "\u2028", "$SENTRY_DSN", "${A}", "=", ":", ": ", "http://key@host/1", "Käse", "x y", ";",
])  # fmt: skip
TEXTS = st.lists(WORDS, max_size=25).map(lambda words: "".join(words).encode())
LINES = st.lists(
    st.sampled_from(
        [
            "A=1",
            "B='two words'",
            'C="multi\nline"',
            "# don't",
            "",
            "D=C:\\data",
            "E=it's",
            "export F=f",
            "SENTRY_DSN_OLD=x",
            "???",
        ]
    ),
    max_size=6,
)
FORMS = st.sampled_from(
    [template for _, template, _ in GOOD if "\n" not in template.strip() and "\ufeff" not in template]
)
VALUES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789:/@._-[]", min_size=1)


@given(st.one_of(TEXTS, st.binary(max_size=60)))
@example(b"SENTRY_DSN")
@example(b"SENTRY_DSN=")
@example(b"SENTRY_DSN=\\")
@example(b"\xef\xbb\xbf")
@settings(max_examples=600, deadline=None, database=None)
def test_any_bytes_are_edited_exactly_or_refused(data: bytes) -> None:
    try:
        found = find_assignment(data, "SENTRY_DSN")
    except CutoverError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert data[found.start : found.end].decode() == found.value
    edited = replace_value(data, "SENTRY_DSN", NEW)
    assert edited == data[: found.start] + NEW.encode() + data[found.end :]
    assert find_assignment(edited, "SENTRY_DSN").value == NEW
    if found.value:
        assert replace_value(edited, "SENTRY_DSN", found.value) == data


@given(before=LINES, form=FORMS, after=LINES, end=st.sampled_from(["\n", "\r\n"]), old=VALUES, new=VALUES)
@settings(max_examples=300, deadline=None, database=None)
def test_there_and_back_gives_the_very_bytes_of_before(
    before: list[str], form: str, after: list[str], end: str, old: str, new: str
) -> None:
    data = end.join([*before, form.strip("\r\n").replace("{}", old), *after]).encode()
    try:
        edited = replace_value(data, "SENTRY_DSN", new)
    except CutoverError as error:
        # Two apostrophes around the key: a shell would read across it.
        assert "inside a quoted value" in str(error)  # noqa: PT017
        assert data.count(b"it's") > 0
        return
    assert find_assignment(edited, "SENTRY_DSN").value == new
    assert replace_value(edited, "SENTRY_DSN", old) == data


@pytest.mark.parametrize(
    "filler", ["\n", " ", "'", '"', "`", "\\", "x", "A=\n", "A='", "#", "A: ", "SENTRY_DSN ", "\\'", '=\\"']
)
@pytest.mark.slow
def test_no_file_takes_long(filler: str) -> None:
    data = (filler * (60_000 // len(filler))).encode()
    began = time.process_time()
    for text in (data, data + b"\nSENTRY_DSN=x\n", b"SENTRY_DSN=x\n" + data):
        with contextlib.suppress(CutoverError):
            replace_value(text, "SENTRY_DSN", NEW)
    # A guard against reading the file anew for each line, which takes minutes; no figure.
    assert time.process_time() - began < 30

"""One value of a ``.env`` file, replaced with every other byte kept.

The readers of such files (dotenv, ``node --env-file``, a shell) disagree on byte order marks, duplicate keys,
spaces around ``=`` and unclosed quotes; measured with dotenv 18, Node.js 20 and dash. Where they agree the
value is edited in place; where the file could be read in two ways it is refused with one sentence.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from .errors import CutoverError
from .files import fsync_directory, write_new

_BOM = b"\xef\xbb\xbf"
_SAFE_VALUE = re.compile(r"[A-Za-z0-9:/@._~\[\]-]+")
_ASSIGNMENT = re.compile(
    r"[ \t]*(?P<export>export[ \t]+)?(?P<key>[A-Za-z0-9_.-]+)(?P<sign>[ \t]*=|:[ \t])[ \t]*"
)
_LINE_END = re.compile(r"[ \t]*(#[^\n]*)?(?:\r?\n|\r?\Z)")
_UNQUOTED = re.compile(r"[^\s#'\"`]*")


@dataclass(frozen=True)
class Assignment:
    """Where the value of the wanted key stands: line (from 1) and byte range of the bare value."""

    line: int
    start: int
    end: int
    value: str = field(repr=False)


def _quoted_end(text: str, start: int) -> int | None:
    """Index of the quote that closes the one at ``start``; None when there is none (dotenv's rule)."""
    quote = text[start]
    at = start + 1
    while (at := text.find(quote, at)) != -1:
        if text[at - 1] != "\\":
            return at
        at += 1
    return None


def find_assignment(data: bytes, key: str, name: str = "the file") -> Assignment:
    """Find the one assignment of ``key`` in ``data``.

    Raises CutoverError when the file cannot be decoded, or holds no, two or an unclear assignment; ``name``
    is how messages call the file.
    """
    bom = len(_BOM) if data.startswith(_BOM) else 0
    try:
        text = data[bom:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise CutoverError(f"{name} is not UTF-8 text (byte {bom + error.start})") from None
    if "\x00" in text:
        raise CutoverError(f"{name} holds a NUL byte, it is not a text file")
    if re.search(r"\r(?!\n)", text):
        raise CutoverError(f"{name} holds a carriage return inside a line, its readers would not agree on it")
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(text):
        newline = text.find("\n", at)
        line_end = len(text) if newline == -1 else newline + 1
        match = _ASSIGNMENT.match(text, at, line_end)
        if match is None:
            at = line_end
            continue
        if match["key"] == key:
            found.append(_value_range(text, match, line_end, name))
            at = line_end
            continue
        at = _skip_value(text, match.end(), line_end, key, name)
    if not found:
        raise CutoverError(f"{name} holds no {key}")
    if len(found) > 1:
        lines = " and ".join(str(line) for line, _, _ in found)
        raise CutoverError(f"{name} sets {key} {len(found)} times (lines {lines}): leave one of them")
    line, start, end = found[0]
    offset = bom + len(text[:start].encode())
    value = text[start:end]
    return Assignment(line=line, start=offset, end=offset + len(value.encode()), value=value)


def _line_number(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _value_range(text: str, match: re.Match[str], line_end: int, name: str) -> tuple[int, int, int]:
    """Line, start and end of the bare value after ``match``, or a refusal."""
    line = _line_number(text, match.start())
    if match["sign"].startswith(":"):
        raise CutoverError(
            f"{name} line {line}: {match['key']} is set with a colon, which not every reader accepts"
        )
    start = match.end()
    if start < line_end and text[start] in "'\"`":
        closing = _quoted_end(text, start)
        if closing is None or closing >= line_end:
            raise CutoverError(
                f"{name} line {line}: the quote that opens the value of {match['key']} is not closed"
            )
        start, end, rest = start + 1, closing, closing + 1
    else:
        bare = _UNQUOTED.match(text, start, line_end)
        end = rest = bare.end() if bare else start
    if _LINE_END.match(text, rest) is None:
        raise CutoverError(f"{name} line {line}: there is unexpected text after the value of {match['key']}")
    return line, start, end


def _skip_value(text: str, start: int, line_end: int, key: str, name: str) -> int:
    """Where the line after another variable's value begins; quoted values may span lines."""
    if start >= line_end or text[start] not in "'\"`":
        return line_end
    closing = _quoted_end(text, start)
    if closing is None or closing < line_end:
        return line_end
    inside = re.search(
        rf"^[ \t]*(?:export[ \t]+)?{re.escape(key)}[ \t]*[=:]", text[start:closing], re.MULTILINE
    )
    if inside:
        line = _line_number(text, start + inside.start())
        opened = _line_number(text, start)
        raise CutoverError(
            f"{name} line {line}: {key} stands inside a quoted value that opens on line {opened}"
        )
    newline = text.find("\n", closing)
    return len(text) if newline == -1 else newline + 1


def replace_value(data: bytes, key: str, value: str, name: str = "the file") -> bytes:
    """``data`` with the one value of ``key`` replaced; every other byte is the same.

    Raises CutoverError as ``find_assignment`` does, or when ``value`` would need quoting.
    """
    if _SAFE_VALUE.fullmatch(value) is None:
        raise CutoverError(f"the new value of {key} holds characters that a .env file would have to quote")
    before = find_assignment(data, key, name)
    result = data[: before.start] + value.encode() + data[before.end :]
    if find_assignment(result, key, name).value != value:
        raise CutoverError(f"{name}: the edited file would not read back as intended, so it was left alone")
    return result


@dataclass(frozen=True)
class EnvFile:
    """A ``.env`` file at ``path``; a symbolic link is followed and stays a link."""

    path: Path
    key: str

    @property
    def target(self) -> Path:
        """The file itself, behind any symbolic links."""
        return self.path.resolve()

    def read(self) -> bytes:
        """The bytes. Raises CutoverError when the file is missing or unreadable."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise CutoverError(f"there is no file {self.path}") from None
        except OSError as error:
            raise CutoverError(f"cannot read {self.path}: {error.strerror}") from None

    def value(self) -> str:
        """The value of ``key``. Raises CutoverError when there is not exactly one."""
        return find_assignment(self.read(), self.key, str(self.path)).value

    def replace(self, value: str) -> bool:
        """Set ``key`` to ``value`` atomically, keeping mode and owner; True when the file changed."""
        data = self.read()
        edited = replace_value(data, self.key, value, str(self.path))
        if edited == data:
            return False
        self._write(edited, expected=data)
        return True

    def restore(self, data: bytes, mode: int, owner: tuple[int, int]) -> None:
        """Put the whole file back as ``data`` with ``mode`` and ``owner``."""
        write_new(self.target, data, mode=mode, owner=owner)

    def stat(self) -> tuple[int, tuple[int, int]]:
        """Mode bits and (uid, gid) of the file."""
        try:
            info = self.path.stat()
        except OSError as error:
            raise CutoverError(f"cannot read {self.path}: {error.strerror}") from None
        return stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid)

    def backup(self, stamp: str, label: str = "pre-glitchtip") -> Path:
        """Copy the file beside itself as ``<name>.<label>-<stamp>`` with its mode; reuse an equal copy."""
        data = self.read()
        mode, owner = self.stat()
        for number in range(1, 100):
            suffix = "" if number == 1 else f"-{number}"
            copy = self.path.with_name(f"{self.path.name}.{label}-{stamp}{suffix}")
            if not copy.exists():
                write_new(copy, data, mode=mode, owner=owner)
                return copy
            if copy.read_bytes() == data:
                return copy
        raise CutoverError(f"there are too many copies of {self.path} of {stamp}")

    def clean(self) -> None:
        """Remove what an interrupted write may have left beside the file."""
        with contextlib.suppress(OSError):
            self.target.with_name(self.target.name + ".part").unlink()
            fsync_directory(self.target.parent)

    def _write(self, data: bytes, *, expected: bytes) -> None:
        mode, owner = self.stat()
        if not os.access(self.target.parent, os.W_OK):
            raise CutoverError(f"cannot write {self.path}: its directory is not writable")
        if self.read() != expected:
            raise CutoverError(f"{self.path} was changed by somebody else meanwhile")
        write_new(self.target, data, mode=mode, owner=owner)

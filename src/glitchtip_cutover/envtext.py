"""The text of a ``.env`` file: where the one value of a variable stands, and the same bytes with another value.

Three readers of such files matter: dotenv for Node.js, ``node --env-file`` and a shell (``set -a; . .env``). They
disagree on byte order marks, blanks around ``=``, quotes, backslashes and line ends. The rule held here, against
the real three by tests/integration/envfile (dotenv 17, Node.js 20, dash): the new value is read by exactly those
that read the old one, and every other variable stays what it was for each of them. A file where that cannot be
promised is refused with one sentence.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from .errors import CutoverError

_BOM = b"\xef\xbb\xbf"
#: Characters that mean nothing but themselves to each reader, without quotes and within them.
_BARE_VALUE = re.compile(r"(?!~)(?!.*:~)[A-Za-z0-9:/@._~\[\]=%+,?*!^{}-]*")
_QUOTED_VALUE = re.compile(r"[A-Za-z0-9:/@._~\[\]=%+,?*!^{} #-]*")

# dotenv's own expression (17.2.3, lib/main.js) for text without carriage returns, with JavaScript's meaning of \s
# and \w spelled out. It begins at the line of its variable: the blank lines that dotenv's takes along before it
# change nothing but the time.
_INDENT = r"[\t\v\f \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\ufeff]*"
_SPACE = r"[\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\ufeff]"
_DOTENV = re.compile(
    rf"^{_INDENT}(?:export{_SPACE}+)?(?P<key>[A-Za-z0-9_.-]+)(?:{_SPACE}*={_SPACE}*?|:{_SPACE}+?)"
    rf"(?P<value>{_SPACE}*'(?:\\'|[^'])*'|{_SPACE}*\"(?:\\\"|[^\"])*\"|{_SPACE}*`(?:\\`|[^`])*`|[^#\n]+)?"
    rf"{_SPACE}*(?:#[^\n]*)?$",
    re.MULTILINE,
)
# What opens and closes in a shell. A match without a closing quote runs to the end of the file.
_SHELL = re.compile(
    r"(?P<escape>\\.)"
    r"|(?P<comment>(?<![^ \t\n;&|()<>])(?<!\\[ \t])#[^\n]*)"
    r"|(?P<single>'[^']*(?P<single_end>')?)"
    r'|(?P<double>"[^"\\]*(?:\\.[^"\\]*)*(?P<double_end>")?)'
    r"|(?P<back>`[^`\\]*(?:\\.[^`\\]*)*(?P<back_end>`)?)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Assignment:
    """Where the value of the wanted key stands: line (from 1), byte range of the bare value, its quote or ""."""

    line: int
    start: int
    end: int
    quote: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class _Token:
    """Characters that a reader takes as one; ``open`` when its quote is not closed before the end of the file."""

    kind: str
    start: int
    end: int
    open: bool = False


def _decode(data: bytes, name: str) -> str:
    """The text behind a byte order mark with its own line ends, or a refusal."""
    try:
        text = data.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        offset = len(data) - len(data.removeprefix(_BOM))
        raise CutoverError(f"{name} is not UTF-8 text (byte {offset + error.start})") from None
    if "\x00" in text:
        raise CutoverError(f"{name} holds a NUL byte, it is not a text file")
    if odd := re.search(r"\r(?!\n)", text):
        raise CutoverError(
            f"{name} line {_line_number(text, odd.start())}: a carriage return stands inside the line, "
            "its readers would not agree on it"
        )
    if odd := re.search(r"[\u2028\u2029]", text):
        raise CutoverError(
            f"{name} line {_line_number(text, odd.start())}: a Unicode line separator stands inside the line, "
            "its readers would not agree on it"
        )
    return text


def _line_number(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Index of the newline that ends the line of ``at``, or of the end of the text."""
    newline = text.find("\n", at)
    return len(text) if newline == -1 else newline


def _node_quotes(text: str, until: int, *, joins: bool) -> Iterator[_Token]:
    """Quoted values that begin before ``until``, as ``node --env-file`` sees them.

    It knows no escapes, and drops whatever follows on the line of the closing quote. With ``joins`` a line without
    ``=`` belongs to the next one, as in Node.js 20; without, it is skipped.
    """
    at = 0
    while at < until:
        if text[at] in "\n#":
            at = _line_end(text, at) + 1
            continue
        equal = text.find("=", at)
        if equal == -1:
            return
        if not joins and equal > _line_end(text, at):
            at = _line_end(text, at) + 1
            continue
        start = equal + 1
        while text[start : start + 1] in (" ", "\t"):
            start += 1
        end = equal
        if text[start : start + 1] in ("'", '"', "`"):
            closing = text.find(text[start], start + 1)
            if closing != -1:
                yield _Token("quote", start, closing + 1)
                end = closing
        at = _line_end(text, end) + 1


def _shell_tokens(text: str) -> list[_Token]:
    """Escapes, comments and quotes as a shell sees them, counted without carriage returns at line ends."""
    returns = [match.start() for match in re.finditer("\r", text)]
    tokens = []
    for match in _SHELL.finditer(text):
        start, end = (at - bisect_left(returns, at) for at in match.span())
        kind = match.lastgroup or ""
        if kind in ("single", "double", "back"):
            tokens.append(_Token("quote", start, end, open=match[f"{kind}_end"] is None))
        else:
            tokens.append(_Token("join" if match[0] == "\\\n" else kind, start, end))
    return tokens


def find_assignment(data: bytes, key: str, name: str = "the file") -> Assignment:
    """Find the one assignment of ``key`` in ``data``, one that can be edited.

    Raises CutoverError when the file cannot be decoded, holds no, two or an unclear assignment, or one that its
    readers do not see alike; ``name`` is how messages call the file.
    """
    raw = _decode(data, name)
    text = raw.replace("\r\n", "\n")
    dotenv = list(_DOTENV.finditer(text))
    shell = _shell_tokens(raw)
    lines = list(
        re.finditer(
            rf"^[ \t]*(?:export[ \t]+)?(?P<key>{re.escape(key)})(?P<sign>[ \t]*=|[ \t]*:(?=\s))",
            text,
            re.MULTILINE,
        )
    )
    _refuse_within(text, lines, dotenv, shell, name, key)
    if len(lines) > 1:
        numbers = " and ".join(str(_line_number(text, match.start())) for match in lines)
        raise CutoverError(f"{name} sets {key} {len(lines)} times (lines {numbers}): leave one of them")
    seen = [match for match in dotenv if match["key"] == key]
    if not lines:
        raise CutoverError(_absent(text, seen, key, name))
    line = _line_number(text, lines[0].start())
    start, end = _value_range(text, lines[0], f"{name} line {line}", key)
    agreed = len(seen) == 1 and seen[0].start("key") == lines[0].start("key")
    if not agreed or not _is_value(text, seen[0], start, end):
        raise CutoverError(f"{name} line {line}: its readers do not agree on where the value of {key} is")
    _refuse_neighbours(text, lines[0], shell, name, key)
    value = text[start:end]
    ahead = sum(len(other) + 1 for other in data.removeprefix(_BOM).split(b"\n", line - 1)[: line - 1])
    column = text[text.rfind("\n", 0, start) + 1 : start]
    at = len(data) - len(data.removeprefix(_BOM)) + ahead + len(column.encode())
    quote = column[-1] if column[-1] in "'\"`" else ""
    return Assignment(line=line, start=at, end=at + len(value.encode()), quote=quote, value=value)


def _refuse_within(
    text: str,
    lines: list[re.Match[str]],
    dotenv: list[re.Match[str]],
    shell: list[_Token],
    name: str,
    key: str,
) -> None:
    """Refuse when any reader takes a line of the key as a part of another value.

    A shell that finds a quote open at the end of the file stops there, so such a quote hides nothing.
    """
    quotes = [_Token("quote", *match.span("value")) for match in dotenv if match["value"]]
    quotes += [token for token in shell if token.kind == "quote" and not token.open]
    until = max((match.start() for match in lines), default=0)
    quotes += [*_node_quotes(text, until, joins=True), *_node_quotes(text, until, joins=False)]
    for match in lines:
        within = [token for token in quotes if token.start < match.start() < token.end]
        if within:
            raise CutoverError(
                f"{name} line {_line_number(text, match.start())}: {key} stands inside a quoted value that "
                f"opens on line {_line_number(text, min(token.start for token in within))}"
            )


def _absent(text: str, seen: list[re.Match[str]], key: str, name: str) -> str:
    """Why there is nothing to edit, and what to do."""
    if seen:
        line = _line_number(text, seen[0].start("key"))
        return (
            f"{name} line {line}: {key} is set in a way that not every reader understands, write {key}=value"
        )
    other = re.search(
        rf"^[ \t]*(?:export[ \t]+)?({re.escape(key)})[ \t]*=", text, re.MULTILINE | re.IGNORECASE
    )
    if other:
        return (
            f"{name} holds no {key}, but line {_line_number(text, other.start())} sets {other[1]}: "
            "names are read with their case"
        )
    return (
        f"{name} holds no {key}: add the line {key}=... with the DSN that is in use, also where the product gets it "
        "from elsewhere (PM2's own environment, an ecosystem file)"
    )


def _value_range(text: str, match: re.Match[str], where: str, key: str) -> tuple[int, int]:
    """Start and end of the bare value after ``match``, or a refusal that begins with ``where``."""
    if match["sign"].endswith(":"):
        raise CutoverError(f"{where}: {key} is set with a colon, which not every reader accepts")
    stop = _line_end(text, match.end())
    start = match.end()
    while start < stop and text[start] in " \t":
        start += 1
    if start < stop and text[start] in "'\"`":
        quote = text[start]
        closing = text.find(quote, start + 1, stop)
        if closing == -1:
            raise CutoverError(f"{where}: the quote that opens the value of {key} is not closed on this line")
        start, end, rest, allowed = start + 1, closing, closing + 1, _QUOTED_VALUE
    else:
        end = start
        while end < stop and text[end] not in " \t#":
            end += 1
        rest, allowed = end, _BARE_VALUE
        if start == end and start > match.end():
            if start == stop:
                raise CutoverError(f"{where}: blanks follow the empty value of {key}, take them away")
            start = end = match.end()
    value = text[start:end]
    if "$" in value:
        raise CutoverError(f"{where}: the value of {key} is put together from other variables, write it out")
    if allowed.fullmatch(value) is None:
        raise CutoverError(f"{where}: the value of {key} holds characters that its readers do not see alike")
    if re.fullmatch(r"[ \t]*(#.*)?", text[rest:stop]) is None:
        raise CutoverError(f"{where}: there is unexpected text after the value of {key}")
    return start, end


def _is_value(text: str, match: re.Match[str], start: int, end: int) -> bool:
    """Whether dotenv finds exactly that value there."""
    if match["value"] is None:
        return start == end
    found, stop = match.span("value")
    inner = text[found:stop]
    found += len(inner) - len(inner.lstrip())
    stop -= len(inner) - len(inner.rstrip())
    if found >= stop:
        return start == end
    if text[found] in "'\"`":
        found, stop = found + 1, stop - 1
    return (found, stop) == (start, end)


def _refuse_neighbours(text: str, match: re.Match[str], shell: list[_Token], name: str, key: str) -> None:
    """Refuse other lines that a shell, or dotenv with expansion, ties to this variable."""
    line = _line_number(text, match.start())
    if any(token.kind == "join" and token.end == match.start() for token in shell):
        raise CutoverError(
            f"{name} line {line - 1} ends with a backslash, so a shell joins it with the line of {key}: "
            "put an empty line between them"
        )

    def within(at: int, *kinds: str) -> bool:
        return any(token.kind in kinds and token.start < at < token.end for token in shell)

    for use in re.finditer(rf"\$\{{?{re.escape(key)}(?![A-Za-z0-9_])", text):
        if not within(use.start(), "comment"):
            raise CutoverError(
                f"{name} line {_line_number(text, use.start())}: another value is made from {key}, write it out there"
            )
    for other in re.finditer(rf"(?<![^\s;&|()])['\"`]?{re.escape(key)}\+?=", text):
        if other.end() != match.end() and not within(other.start(), "comment", "quote"):
            raise CutoverError(
                f"{name} line {_line_number(text, other.start())}: a shell would set {key} there, too: "
                "leave one of them"
            )


def replace_value(data: bytes, key: str, value: str, name: str = "the file") -> bytes:
    """``data`` with the one value of ``key`` replaced; every other byte is the same.

    Raises CutoverError as ``find_assignment`` does, or when ``value`` would need other quotes than stand there.
    """
    before = find_assignment(data, key, name)
    allowed = _QUOTED_VALUE if before.quote else _BARE_VALUE
    if not value or allowed.fullmatch(value) is None:
        raise CutoverError(f"the new value of {key} holds characters that a .env file would have to quote")
    result = data[: before.start] + value.encode() + data[before.end :]
    if find_assignment(result, key, name).value != value or _others(data, key) != _others(result, key):
        raise CutoverError(f"{name}: the edited file would not read back as intended, so it was left alone")
    return result


def _others(data: bytes, key: str) -> list[tuple[str, str]]:
    """Every other variable as dotenv finds it."""
    text = data.removeprefix(_BOM).decode("utf-8").replace("\r\n", "\n")
    return [(match["key"], match["value"] or "") for match in _DOTENV.finditer(text) if match["key"] != key]


def read_variables(data: bytes) -> dict[str, str]:
    """Every variable as dotenv reads it, without its quotes; the last of a name counts."""
    text = data.removeprefix(_BOM).decode("utf-8", "replace").replace("\r\n", "\n")
    found: dict[str, str] = {}
    for match in _DOTENV.finditer(text):
        value = (match["value"] or "").strip()
        quoted = len(value) > 1 and value[0] in "'\"`" and value[0] == value[-1]
        found[match["key"]] = value[1:-1] if quoted else value
    return found

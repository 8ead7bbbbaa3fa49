"""DSNs in the text of settings files: where they are, and which variable of whom they are the value of.

Nothing is executed: an ecosystem file is read as JavaScript source, a Compose or workflow file by its indentation, and
``.env`` files, units and scripts line by line. Comments count for nothing. What a file works out at run time
(``process.env.X``, a secret of CI) cannot be seen here; the running processes show it after the next deploy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

CODE, YAML, LINES = "code", "yaml", "lines"

#: A DSN, or one that is put together from parts (``https://${KEY}@host/${PROJECT}``).
DSN_LIKE = re.compile(
    r"https?://(?:[A-Za-z0-9_:-]|\$\{[^{}\s]{1,100}\}|\$[A-Za-z_]\w{0,60}){1,200}@"
    r"(?:(?:[A-Za-z0-9._-]|\$\{[^{}\s]{1,100}\}|\$[A-Za-z_]\w{0,60}){1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
    r"(?:/[A-Za-z0-9._~-]{1,64}){0,8}?/(?:[0-9]{1,20}|\$\{[^{}\s]{1,100}\}|\$[A-Za-z_]\w{0,60})"
    r"(?![A-Za-z0-9_~-]|[./][A-Za-z0-9_~-])"
)
_TOKEN = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))"
    r"|(?P<string>'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|`(?:\\.|[^`\\])*`)"
    r"|(?P<word>[A-Za-z_$][\w$]*)"
    r"|(?P<sign>\S)",
    re.DOTALL,
)
_CLOSING = {"}": "{", "]": "[", ")": "("}
#: Keys that say nothing about where in an ecosystem file a variable is.
_PLAIN_KEYS = frozenset({"exports", "apps", "default"})
_YAML_KEY = re.compile(
    r"^(?P<indent>[ \t]*(?:-[ \t]+)*)(?P<key>[A-Za-z0-9_.-]+|\"[^\"]+\"|'[^']+')[ \t]*:(?=\s|$)(?P<rest>.*)$"
)
# The variable before a value: NAME=, NAME: , "NAME": ", ${NAME:-, ENV NAME .
_NAME = re.compile(
    r"(?:(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[\"']?[ \t]*(?::-|:=|[:=])[ \t]*|\bENV[ \t]+(?P<docker>[A-Za-z_]\w*)[ \t]+)[\"'`]?$"
)


@dataclass(frozen=True)
class Mention:
    """One value. ``name`` is the variable ("" where it cannot be seen), ``path`` its place in the file's structure,
    ``block`` the object that holds it (``env_production``), ``owner`` the application or Compose service.

    ``declared``: the name is one of the file's own code, not a variable that a service gets. ``value`` may be a secret.
    """

    line: int
    name: str
    path: str
    value: str = field(repr=False)
    owner: str = ""
    block: str = ""
    declared: bool = False


def mask(value: str) -> str:
    """A value for people: without its key, ``***`` where it is no address, ``-`` where it is empty."""
    if not value:
        return "-"
    masked, count = re.subn(r"//.*@", "//***@", value, flags=re.DOTALL)
    return masked if count and re.match(r"https?://", value) else "***"


def find_mentions(text: str, kind: str, key: str) -> list[Mention]:
    """Every DSN in ``text``, and every literal value of the variable ``key`` in code, in their order."""
    if key not in text and "\\/" not in text and DSN_LIKE.search(text) is None:
        return []
    if kind == CODE:
        return list(_in_code(text, key))
    return list(_in_yaml(text)) if kind == YAML else list(_in_lines(text))


# --- JavaScript and JSON ------------------------------------------------------------------------------------


@dataclass
class _Frame:
    """An open bracket: the key that it is the value of, the key that is being set in it, its ``name``."""

    sign: str
    key: str = ""
    declared: bool = False
    current: str = ""
    current_declared: bool = False
    name: str = ""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int


def _in_code(text: str, key: str) -> Iterator[Mention]:
    tokens = [
        _Token(match.lastgroup or "", match[0], match.start())
        for match in _TOKEN.finditer(text)
        if match.lastgroup != "comment"
    ]
    frames = [_Frame("")]
    found: list[tuple[Mention, tuple[_Frame, ...]]] = []
    for index, token in enumerate(tokens):
        if token.kind == "sign":
            _follow_sign(frames, tokens, index)
        elif token.kind == "string" and not _is_key(frames[-1], tokens, index):
            frame = frames[-1]
            if frame.current == "name" and not frame.current_declared:
                frame.name = token.text[1:-1]
            for value, at in _values(token, frame.current == key):
                line = text.count("\n", 0, token.start + at) + 1
                mention = _code_mention(frames, value, line)
                if inside := _name_before(token.text[: at + 1]):  # a command: "SENTRY_DSN=... node ."
                    mention = replace(mention, name=inside)
                found.append((mention, tuple(frames)))
    for mention, around in found:
        owner = next((frame.name for frame in reversed(around) if frame.name), "")
        yield replace(mention, owner=owner)


def _values(token: _Token, is_wanted: bool) -> list[tuple[str, int]]:
    """DSNs in a string, each with its place there; its whole content where it is the variable's own."""
    content = token.text[1:-1].replace("\\/", "/")
    found = [(match[0], match.start()) for match in DSN_LIKE.finditer(content)]
    return found or ([(content, 0)] if is_wanted else [])


def _code_mention(frames: list[_Frame], value: str, line: int) -> Mention:
    frame = frames[-1]
    keys = [each.key for each in frames if each.key and each.key not in _PLAIN_KEYS]
    nearest = next((each for each in reversed(frames) if each.current), frame)
    name = nearest.current
    path = ".".join([*keys, *([frame.current] if frame.current else [])]) or name
    return Mention(line, name, path, value, block=keys[-1] if keys else "", declared=nearest.current_declared)


def _is_key(frame: _Frame, tokens: list[_Token], index: int) -> bool:
    """Whether the token is a key of an object."""
    before = tokens[index - 1].text if index else ""
    after = tokens[index + 1].text if index + 1 < len(tokens) else ""
    return frame.sign == "{" and before in ("{", ",") and after == ":"


def _follow_sign(frames: list[_Frame], tokens: list[_Token], index: int) -> None:
    sign, frame = tokens[index].text, frames[-1]
    if sign in "{[(":
        frames.append(_Frame(sign, frame.current, frame.current_declared))
        if sign == "(":  # an argument belongs to what the call's result is for
            frames[-1].key, frames[-1].current, frames[-1].current_declared = (
                "",
                frame.current,
                frame.current_declared,
            )
    elif sign in _CLOSING:
        if len(frames) > 1 and frame.sign == _CLOSING[sign]:
            frames.pop()
    elif sign == ",":
        if frame.sign == "{":
            frame.current, frame.current_declared = "", False
    elif sign == ";":
        frame.current, frame.current_declared = "", False
    elif sign == ":" and frame.sign == "{":
        _set_key(frame, tokens, index)
    elif sign == "=":
        _set_declared(frame, tokens, index)


def _set_key(frame: _Frame, tokens: list[_Token], index: int) -> None:
    """``NAME:``, ``"NAME":`` or ``["NAME"]:`` in an object."""
    before = tokens[max(0, index - 4) : index]
    if before and before[-1].kind in ("word", "string") and _is_key(frame, tokens, index - 1):
        frame.current, frame.current_declared = before[-1].text.strip("'\"`"), False
    elif _is_computed(before):
        frame.current, frame.current_declared = before[-2].text[1:-1], False


def _is_computed(before: list[_Token]) -> bool:
    return (
        len(before) > 2 and before[-1].text == "]" and before[-2].kind == "string" and before[-3].text == "["
    )


def _set_declared(frame: _Frame, tokens: list[_Token], index: int) -> None:
    """``NAME =`` or ``x["NAME"] =``; comparisons and arrows are neither."""
    before = tokens[max(0, index - 4) : index]
    here = tokens[index].start
    joined = {token.text for token in before[-1:] if token.start == here - 1 and token.kind == "sign"}
    joined |= {token.text for token in tokens[index + 1 : index + 2] if token.start == here + 1}
    if joined & set("=<>!"):
        return
    if before and before[-1].kind == "word":
        frame.current, frame.current_declared = before[-1].text, True
    elif _is_computed(before):
        frame.current, frame.current_declared = before[-2].text[1:-1], True


# --- YAML ---------------------------------------------------------------------------------------------------


def _in_yaml(text: str) -> Iterator[Mention]:
    above: list[tuple[int, str]] = []
    names: dict[int, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _without_comment(raw)
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip(" \t"))
        starts_item = line.lstrip(" \t").startswith("-")
        match = _YAML_KEY.match(line)
        if match:
            indent = len(match["indent"])
            above = [entry for entry in above if entry[0] < indent]
            names = {
                depth: name
                for depth, name in names.items()
                if depth <= indent and not (starts_item and depth == indent)
            }
            key = match["key"].strip("'\"")
            if key == "name":
                names[indent] = match["rest"].strip(" \t'\"")
            above.append((indent, key))
        else:
            # A list may stand at the indent of its key: only what is deeper is left.
            above = [entry for entry in above if entry[0] <= indent] if starts_item else above
        keys = [key for _, key in above]
        for mention in _on_line(line, number):
            own = bool(match) and mention.name == keys[-1]
            around = keys[:-1] if own else keys
            owner = _yaml_owner(keys, names)
            path = [
                key for key in [*around, *([mention.name] if mention.name else [])] if key not in _PLAIN_KEYS
            ]
            block = around[-1] if around else ""
            yield replace(mention, path=".".join(path), owner=owner, block=block)


def _yaml_owner(keys: list[str], names: dict[int, str]) -> str:
    """The Compose service, or the ``name`` of the application in an ecosystem file."""
    if len(keys) > 1 and keys[0] == "services":
        return keys[1]
    return next(reversed(names.values()), "") if keys[:1] == ["apps"] else ""


# --- lines --------------------------------------------------------------------------------------------------


def _in_lines(text: str) -> Iterator[Mention]:
    for number, raw in enumerate(text.splitlines(), start=1):
        yield from _on_line(_without_comment(raw), number)


def _on_line(line: str, number: int) -> Iterator[Mention]:
    for match in DSN_LIKE.finditer(line):
        name = _name_before(line[: match.start()])
        yield Mention(number, name, name, match[0])


def _name_before(text: str) -> str:
    """The variable that is set right behind ``text``; "" where none is."""
    named = _NAME.search(text[-200:])
    return (named["name"] or named["docker"]) if named else ""


def _without_comment(line: str) -> str:
    """The line up to a comment: ``#`` or ``;`` first in it, or ``#`` after a blank and outside quotes."""
    if line.lstrip()[:1] in ("#", ";"):
        return ""
    quote = ""
    for at, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'`":
            quote = sign
        elif sign == "#" and at and line[at - 1] in " \t":
            return line[:at]
    return line

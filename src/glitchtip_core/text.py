"""Text that others wrote, on its way to people: nothing in it acts on a terminal, a log, a chat or the header of a mail.

Names of processes, titles of events, answers of servers, names of files: whoever chooses them may put an escape sequence
into them, turn the direction of a line, or call a whole channel. Control characters and those that turn the direction are
replaced at the exits, where every text passes: :func:`guarded_output` (standard output and error of a command),
:func:`printable_document` (JSON),
:func:`printable_module` (modules of Ansible), the transports of ``notify``.
"""

from __future__ import annotations

import contextlib
import html
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO, TypeVar, cast

_MARK = "?"
_BREAK = "\u200b"
#: Control characters (with line breaks and tabs), embeddings and overrides of the direction, separators of lines and
#: paragraphs, halves of characters, and what is not seen at all. Joiners, which belong to words and emoji, stay, and so do
#: the marks of direction (LRM, RLM, ALM), which turn nothing but the punctuation beside them. Tags stay only in the flags
#: of England, Scotland and Wales, the only emoji that have them (Unicode's emoji-sequences.txt): those match as a whole.
_UNPRINTABLE = re.compile(
    "\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073)\U000e007f|"
    "[\x00-\x1f\x7f-\x9f\xad\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_UNPRINTABLE_BUT_LINES = re.compile(_UNPRINTABLE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
#: Words that call everybody, and what Slack and Discord read as a mention.
_MENTION = re.compile(r"@(?=everyone|here|channel|all\b)|<(?=[!@#&])", re.IGNORECASE)
#: What calls somebody, or is an address: written by the operator it stays.
_CALL = re.compile(r"<[!@#&][^\s<>]*>|[^\s<>@,;()]*@[^\s<>@,;()]+")
_MARKDOWN = re.compile(r"([\\`*_~\[\]()<>#|!])")
_Module = TypeVar("_Module")


def printable(text: object, mark: str = _MARK) -> str:
    """``text`` as one line: everything that may act on a terminal, also a line break or a tab, becomes ``mark``."""
    return _UNPRINTABLE.sub(lambda found: _kept(found, mark), str(text))


def printable_lines(text: object, mark: str = _MARK) -> str:
    """The same for a text of lines: line breaks and tabs stay."""
    return _UNPRINTABLE_BUT_LINES.sub(lambda found: _kept(found, mark), str(text).replace("\r\n", "\n"))


def _kept(found: re.Match[str], mark: str) -> str:
    """A flag as it is, a single character as ``mark``."""
    return found[0] if len(found[0]) > 1 else mark


def one_line(text: object) -> str:
    """``text`` as one line of words, with one space for whatever parts them."""
    return " ".join(printable(text, " ").split())


def printable_document(value: Any) -> Any:
    """The same document for JSON, each text in it by :func:`printable_lines`, each name of a field by :func:`printable`."""
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, Mapping):
        return {
            printable(key) if isinstance(key, str) else key: printable_document(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [printable_document(item) for item in value]
    return value


# ------------------------------------------------------------------ media


def without_mentions(text: str) -> str:
    """``text`` in which nothing calls a channel: an invisible space parts the sign from its word. For any receiver."""
    return _MENTION.sub(lambda found: found[0] + _BREAK, text)


def escape_slack(text: str) -> str:
    """For the text of a Slack message: no markup, no link, no mention."""
    return _without_names(html.escape(text, quote=False))


def escape_discord(text: str) -> str:
    """For the content of a Discord message: no markup, no link, no mention (``allowed_mentions`` says so, too)."""
    return _without_names(re.sub(r"([\\*_~`|>\[\]()#<-])", r"\\\1", text))


def escape_telegram(text: str) -> str:
    """For a Telegram message with ``parse_mode`` HTML: no tag, no mention."""
    return _without_names(html.escape(text, quote=False))


def escape_markdown(text: str) -> str:
    """For Markdown of a chat or a ticket: no markup, no link, no mention."""
    return _MARKDOWN.sub(r"\\\1", _without_names(text).replace("://", f":{_BREAK}//"))


def calls_in(text: str) -> tuple[str, ...]:
    """The words of a text of the operator's own that call somebody or name an address; none that a fact is a part of (``$``)."""
    return tuple(dict.fromkeys(word for word in _CALL.findall(text) if "$" not in word))


def with_calls(
    text: str, escape: Callable[[str], str], calls: Sequence[str], *, brackets: bool = True
) -> str:
    """``text``, escaped, in which the operator's own words (:func:`calls_in`) are whole again, and no longer words.

    ``brackets``: the medium writes mentions as ``<...>``. A word that others put in as well calls nobody whom the message
    does not call by itself.
    """
    shown = escape(text)
    for word in calls:
        if word.startswith("<") and not brackets:
            continue
        whole = word if word.startswith("<") else escape(word).replace(f"@{_BREAK}", "@")
        pattern = rf"(?<![\w@]){re.escape(escape(word))}(?![\w@{_BREAK}])"
        shown = whole.join(re.split(pattern, shown))
    return shown


def _without_names(text: str) -> str:
    """No mention of anybody: an invisible space parts @ from what follows it."""
    return text.replace("@", f"@{_BREAK}")


# ------------------------------------------------------------------ exits


class _Printable:
    """A text stream that passes on only what may be printed, in characters that its encoding has."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``; the number of its characters."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(printable_lines(text).encode(encoding, "replace").decode(encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Everything that is printed meanwhile, whoever prints it, is printable: results, progress, errors of arguments.

    An exception that nobody catches leaves the guard where it is, so that its traceback passes it, too.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Printable(stream)) for stream in before)
    unexpected = False
    try:
        yield
    except Exception:
        unexpected = True
        raise
    finally:
        if not unexpected:
            sys.stdout, sys.stderr = before


def printable_module(module: _Module) -> _Module:
    """The same Ansible module, whose results, messages and warnings are printable from now on."""
    given: Any = module
    leave, fail, warn = given.exit_json, given.fail_json, given.warn
    given.exit_json = lambda **result: leave(**printable_document(result))
    given.fail_json = lambda msg, **result: fail(msg=printable_lines(msg), **printable_document(result))
    given.warn = lambda warning: warn(printable_lines(warning))
    return module

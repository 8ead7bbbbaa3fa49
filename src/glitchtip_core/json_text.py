"""The one decoder of JSON that somebody else wrote: whatever is wrong with a text, it is a ValueError."""

from __future__ import annotations

import json
import re
from typing import Any

#: A container that is nested deeper than this in a text is read as null where the whole text cannot be decoded.
DEEPEST = 32
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _whole(digits: str) -> int | float:
    """A whole number; one with more digits than Python converts is read as infinity."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


_DECODER = json.JSONDecoder(parse_int=_whole)


def decode_json(data: str | bytes | bytearray) -> Any:
    """The decoded document. Raises ValueError when it is damaged, too deep, too large or no text at all."""
    try:
        return json.loads(data, parse_int=_whole)
    except ValueError:
        raise
    except (RecursionError, OverflowError, MemoryError, TypeError) as error:
        raise ValueError(f"the JSON text cannot be decoded ({type(error).__name__})") from None


def decode_beginning(text: str) -> Any:
    """The document that ``text`` begins with, whatever follows it. Raises ValueError where there is none.

    In a text that is nested too deeply to be decoded, containers below the level ``DEEPEST`` are read as null.
    """
    try:
        return _DECODER.raw_decode(text)[0]
    except RecursionError:
        pass
    try:
        return _DECODER.raw_decode(prune(text))[0]
    except RecursionError:  # never seen: a pruned text has DEEPEST levels
        raise ValueError("the JSON text is nested too deeply") from None


def prune(text: str) -> str:
    """The JSON document that ``text`` begins with, with null for every container below the level ``DEEPEST``."""
    kept: list[str] = []
    level = copied = 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        if sign in ("[", "{"):
            if level == DEEPEST:
                kept += [text[copied : token.start()], "null"]
            level += 1
        elif sign in ("]", "}"):
            level -= 1
            if level == DEEPEST:
                copied = token.end()
            if level <= 0:
                kept.append(text[copied : token.end()])
                return "".join(kept)
    if level > DEEPEST:  # it ends within a container that is left out
        return "".join(kept)
    return "".join([*kept, text[copied:]])

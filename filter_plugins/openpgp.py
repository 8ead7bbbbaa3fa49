"""Fingerprints of OpenPGP keys, without GnuPG: what apt's repositories are signed with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Any

_ARMOUR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+:[^\r\n]*\r?\n)*\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_PUBLIC_KEY = 6
_VERSION = 4


def _raw(text: str) -> bytes:
    """The packets of all armoured blocks. Raises ValueError where there is none."""
    blocks = _ARMOUR.findall(text)
    if not blocks:
        raise ValueError("no public key block")
    lines = (block.rpartition("\n=")[0] or block for block in (each.rstrip() for each in blocks))
    return b"".join(base64.b64decode("".join(each.split()), validate=True) for each in lines)


def _packets(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, body) of each packet (RFC 4880, section 4.2). Raises ValueError, IndexError for anything else."""
    at = 0
    while at < len(raw):
        head = raw[at]
        at += 1
        if not head & 0x80:
            raise ValueError("no packet")
        if head & 0x40:
            tag, first = head & 0x3F, raw[at]
            if first < 192:
                size, at = first, at + 1
            elif first < 224:
                size, at = ((first - 192) << 8) + raw[at + 1] + 192, at + 2
            elif first == 255:
                size, at = int.from_bytes(raw[at + 1 : at + 5], "big"), at + 5
            else:
                raise ValueError("a packet in parts")
        else:
            tag, width = (head & 0x3C) >> 2, 1 << (head & 3)
            if width == 8:
                raise ValueError("a packet without a length")
            size, at = int.from_bytes(raw[at : at + width], "big"), at + width
        if at + size > len(raw):
            raise ValueError("a packet that is cut")
        yield tag, raw[at : at + size]
        at += size


def openpgp_fingerprints(text: str) -> list[str]:
    """Fingerprints (40 upper-case hexadecimal digits) of every primary key in ASCII armour; empty for anything unreadable.

    Only keys of version 4, which apt's repositories have; a text with another one is unreadable.
    """
    try:
        keys = [body for tag, body in _packets(_raw(text)) if tag == _PUBLIC_KEY]
        if not keys or any(body[0] != _VERSION for body in keys):
            return []
    except (ValueError, IndexError, binascii.Error):
        return []
    # RFC 4880, section 12.2; SHA-1 is what the format says.
    return [
        hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
        for body in keys
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"openpgp_fingerprints": openpgp_fingerprints}

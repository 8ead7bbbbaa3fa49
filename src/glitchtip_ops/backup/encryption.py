"""Encryption of backup sets to public keys with ``age`` (the distribution's package).

The public keys are in the argument list, which is where age takes them. Plain text and ciphertext go through
files that this process opened (mode 600), a private key through standard input only.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from glitchtip_core.process import RawCompleted, run_raw

from ..process import OpsError, environment_of

#: What encrypted files end with.
ENDING = ".age"
_PROGRAM = "age"
_SECONDS = 3600.0
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_IDENTITY = re.compile(r"^AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}$", re.MULTILINE)
_BLOCK = 2**20
_GAVE_UP = "broken pipe"


@dataclass(frozen=True)
class Digest:
    """SHA-256 (hexadecimal) and size (bytes) of a file."""

    sha256: str
    size: int


def digest_of(path: Path) -> Digest:
    """Of the file as it is on the disk. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            digest.update(block)
            size += len(block)
    return Digest(digest.hexdigest(), size)


def require_recipient(text: object) -> str:
    """``text`` when it has the form of a public key of age. Raises OpsError, which never quotes it, when it has not."""
    if isinstance(text, str) and text.upper().startswith("AGE-SECRET-KEY-"):
        raise OpsError(
            "age_recipients has a private key: put the public one there (age1...), and make a new pair"
        )
    if not isinstance(text, str) or not _RECIPIENT.fullmatch(text):
        raise OpsError(
            "age_recipients has an entry that is no public key of age (age1 and 58 more letters or digits)"
        )
    return text


def require_program() -> None:
    """Raises OpsError when age is not there: before a dump is taken for nothing."""
    _run(["--version"], stdin=b"")


def encrypt(source: Path | bytes, target: Path, recipients: Sequence[str]) -> Digest:
    """Encrypt ``source`` into the new file ``target``, fsynced; the ciphertext's digest, read back from the disk.

    Raises OpsError when age refuses a recipient or fails, OSError when a file cannot be written; then there is no
    ``target``.
    """
    if not recipients:
        raise OpsError("nothing is encrypted without a recipient")
    options = [word for each in recipients for word in ("-r", require_recipient(each))]
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as output:
            if isinstance(source, bytes):
                _run(["--encrypt", *options], stdin=source, stdout=output)
            else:
                with source.open("rb") as plain:
                    _run(["--encrypt", *options], stdin=plain, stdout=output)
            os.fsync(output.fileno())
        return digest_of(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def decrypted(source: Path, identity: str) -> Iterator[IO[bytes]]:
    """A stream of the plain text of ``source``, which is never on the disk; ``identity`` is a private key of age.

    Raises OpsError when the block is left and the file could not be decrypted to its end.
    """
    if not _IDENTITY.search(identity):
        raise OpsError("standard input has no private key of age (a line AGE-SECRET-KEY-1...)")
    reading, writing = os.pipe()
    failures: list[OpsError] = []

    def decrypt() -> None:
        with os.fdopen(writing, "wb") as output:
            try:
                _run(["--decrypt", "-i", "-", str(source)], stdin=identity.encode(), stdout=output)
            except OpsError as error:
                failures.append(error)

    worker = threading.Thread(target=decrypt, daemon=True)
    worker.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            yield stream
    except Exception:
        worker.join()
        if failures and _GAVE_UP not in str(failures[0]):
            raise failures[0] from None  # the reader failed because there was nothing to read
        raise
    finally:
        worker.join()
    if failures:
        raise failures[0]


def _run(
    arguments: Sequence[str], *, stdin: bytes | IO[bytes], stdout: IO[bytes] | None = None
) -> RawCompleted:
    try:
        done = run_raw(
            [_PROGRAM, *arguments], environment=environment_of(), timeout=_SECONDS, stdin=stdin, stdout=stdout
        )
    except OpsError as error:
        raise OpsError(
            f"{error}; encrypted backups need the package age on this host (role backups installs it)"
        ) from None
    if done.code == -signal.SIGPIPE:
        raise OpsError(f"age failed: {_GAVE_UP}")
    if done.code != 0:
        lines = done.errors.decode("utf-8", "replace").strip().splitlines()
        reason = (
            "".join(sign for sign in lines[0] if sign.isprintable())[:200]
            if lines
            else f"exit code {done.code}"
        )
        raise OpsError(f"age failed: {reason.removeprefix('age: error: ')}")
    return done

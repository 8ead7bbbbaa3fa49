#!/usr/bin/python3 -I
"""Write the stack's secrets to two files for root only: ENV (what the containers need) and PASSWORD (the superuser's).

Called with both paths. A file that exists is kept. Backups copy ENV, so the superuser's password is moved out of an
ENV that has it (earlier versions wrote it there). Prints "changed" when a file was written, and nothing else.
"""

import os
import secrets
import sys

NAME = "SUPERUSER_PASSWORD"


def write(path: str, text: str, replace: bool) -> None:
    """Write ``text`` to ``path``, mode 600, in one step. Raises FileExistsError when it exists, unless ``replace``."""
    part = path + ".part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if replace:
        os.replace(part, path)
    else:
        os.link(part, path)
        os.unlink(part)


def read(path: str) -> str | None:
    """The text of a file, None when there is none."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def main(environment: str, password: str) -> bool:
    """Make what is missing; whether anything was written."""
    lines, known = read(environment), read(password)
    old = [line for line in (lines or "").splitlines() if line.partition("=")[0].strip() == NAME]
    moved = old[-1].partition("=")[2].strip() if old else ""
    if moved and known is not None and known.strip() != moved:
        sys.exit(
            f"{NAME} in {environment} differs from the password in {password}; "
            "remove the line, or the file, whichever no longer opens the superuser's account"
        )
    if lines is None:
        made = {"SECRET_KEY": secrets.token_hex(32), "POSTGRES_PASSWORD": secrets.token_hex(16)}
        write(environment, "".join(f"{name}={value}\n" for name, value in made.items()), replace=False)
    if known is None:
        write(password, (moved or secrets.token_urlsafe(24)) + "\n", replace=False)
    if lines is not None and old:
        kept = [line for line in lines.splitlines(keepends=True) if line.partition("=")[0].strip() != NAME]
        write(environment, "".join(kept), replace=True)
    return lines is None or known is None or bool(old)


if __name__ == "__main__":
    if main(*sys.argv[1:3]):
        print("changed")

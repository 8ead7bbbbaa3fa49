"""Keep what is made anew by each process although it is the same each time.

Python compiles modules in zip archives, as Ansible's on a host and our own program are, each time that they are loaded,
and each ansible-playbook packs the modules that it sends anew. Here both are kept in one directory for a run of the tests.
Python loads this file at its start where its directory is on PYTHONPATH, see ``integration.quick``.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
import zipimport
from _imp import source_hash
from types import CodeType
from typing import Any

DIRECTORY = os.environ.get("TEST_KEPT_DIR", "")


def keep_compiled(directory: str) -> None:
    """Read compiled modules of zip archives from ``directory``, and write those that are not there; a hash is the name."""
    # Private, hence not in the types: zipimport compiles each module of an archive with it.
    compile_source = zipimport._compile_source  # type: ignore[attr-defined]

    def kept(pathname: str, source: bytes) -> CodeType:
        place = os.path.join(directory, f"{sys.hexversion:x}-{len(source)}-{source_hash(1, source).hex()}")
        with contextlib.suppress(OSError), open(place, "rb") as file:
            found: CodeType = marshal.loads(file.read())  # noqa: S302 - this run wrote it, in its own directory
            return found
        code: CodeType = compile_source(pathname, source)
        with contextlib.suppress(OSError):
            part = f"{place}.{os.getpid()}"
            with open(part, "wb") as file:
                file.write(marshal.dumps(code))
            os.rename(part, place)
        return code

    zipimport._compile_source = kept  # type: ignore[attr-defined]


def keep_packed(directory: str) -> None:
    """Let Ansible's cache of packed modules, which is in a new directory each time, be ``directory``/packed.

    Its names are those of the modules, so all that share it have to have the same settings and the same sources.
    """
    import tempfile

    make = tempfile.mkdtemp
    packed = os.path.join(directory, "packed")
    os.makedirs(packed, exist_ok=True)

    def mkdtemp(suffix: Any = None, prefix: Any = None, dir: Any = None) -> Any:  # noqa: A002 - its name there
        made = make(suffix, prefix, dir)
        if isinstance(prefix, str) and prefix.startswith("ansible-local-"):
            os.symlink(packed, os.path.join(made, "ansiballz_cache"))
        return made

    tempfile.mkdtemp = mkdtemp


if DIRECTORY:
    keep_compiled(DIRECTORY)
    if any(word.endswith("/ansible-playbook") for word in sys.orig_argv[1:2]):
        keep_packed(DIRECTORY)

"""This package and the shared one as one executable file, with the same bytes for the same sources."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

_SHEBANG = b"#!/usr/bin/python3 -I\n"
_MAIN = """import sys
from pathlib import Path

from glitchtip_cutover import cli

{places}sys.exit(cli.main())
"""
_PLACE = "cli.{name} = {value}\n"
#: Places that a host may have elsewhere -> the name in cli, and how it is written there.
_NAMES = {
    "config": ("DEFAULT_CONFIG", "Path({!r})"),
    "state_root": ("DEFAULT_STATE_ROOT", "Path({!r})"),
    "break_glass": ("BREAK_GLASS", "{!r}"),
}
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CORE = "glitchtip_core"
_SUFFIXES = frozenset({".py", ".mjs"})


def bundle(package: Path, places: Mapping[str, str] | None = None) -> bytes:
    """The zipapp of the package in directory ``package`` and of ``glitchtip_core`` beside it.

    ``places``: where this host has ``config`` (the file), ``state_root``, and the file name ``break_glass`` of the emergency
    rollback program, so that an operator, and systemd at boot, needs no option. Raises KeyError for another name.

    Sorted names, fixed times, stored uncompressed, because compressed bytes differ between zlib versions, and the
    file is small.
    """
    members = [
        (path.relative_to(directory.parent).as_posix(), path.read_bytes())
        for directory in (package.parent / _CORE, package)
        for path in sorted(directory.rglob("*"))
        if path.suffix in _SUFFIXES and path.is_file()
    ]
    lines = [
        _PLACE.format(name=name, value=written.format(value))
        for (name, written), value in ((_NAMES[key], value) for key, value in sorted((places or {}).items()))
    ]
    main_module = _MAIN.format(places="".join(lines) + "\n" if lines else "")
    buffer = io.BytesIO(_SHEBANG)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name, data in [("__main__.py", main_module.encode()), *members]:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def main() -> None:
    """``python -m glitchtip_cutover.bundle TARGET`` writes the file with mode 755."""
    target = Path(sys.argv[1])
    target.write_bytes(bundle(Path(__file__).resolve().parent))
    target.chmod(0o755)


if __name__ == "__main__":
    main()

"""Pack the operator tools' source into one reproducible archive; print its digest.

Usage: pack_source.py SOURCE_DIRECTORY ARCHIVE PACKAGE [PACKAGE ...]
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import tempfile
from pathlib import Path


def pack(source: Path, packages: list[str]) -> bytes:
    """Return a tar archive of ``packages``: the same bytes for the same content, whoever packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for package in packages:
            root = source / package
            if not (root / "__init__.py").is_file():
                sys.exit(f"{root} is not a Python package")
            for path in [root, *sorted(root.rglob("*"))]:
                if "__pycache__" in path.parts or path.suffix == ".pyc":
                    continue
                entry = tarfile.TarInfo(str(path.relative_to(source)))
                if path.is_dir():
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(entry)
                elif path.is_file():
                    data = path.read_bytes()
                    entry.size, entry.mode = len(data), 0o644
                    archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def main() -> None:
    """Write the archive when it is not there yet and print the digest of its content."""
    source, target, packages = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    content = pack(source, packages)
    digest = hashlib.sha256(content).hexdigest()[:16]
    packed = gzip.compress(content, mtime=0)
    if not target.is_file() or target.read_bytes() != packed:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
            part.write(packed)
        Path(part.name).replace(target)  # several hosts' tasks may pack at the same time
    print(digest)


if __name__ == "__main__":
    main()

"""The same calls without their protection: files are opened by their paths, whatever is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core import foreign_files, foreign_paths, foreign_search
from glitchtip_core import pm2 as core_pm2
from glitchtip_core.foreign_files import Content
from glitchtip_core.foreign_paths import Found, Place
from glitchtip_cutover import envfile, pm2
from glitchtip_ops import mirror


def _walk(path: Path, *, follow: bool = True) -> Found:
    del follow
    return Found(path, os.open(path.parent, os.O_PATH | os.O_DIRECTORY), str(path.parent), path.name)


def _open_directory(path: Path) -> Found:
    return Found(path, os.open(path, os.O_PATH | os.O_DIRECTORY), str(path), ".")


def _path(found: Found, name: str | None) -> str:
    return os.path.join(found.directory, found.name if name is None else name)


def _open_regular(found: Found, name: str | None = None) -> tuple[int, os.stat_result]:
    descriptor = os.open(_path(found, name), os.O_RDONLY)
    return descriptor, os.fstat(descriptor)


def _read(found: Found, limit: int, name: str | None = None) -> Content:
    descriptor = os.open(_path(found, name), os.O_RDONLY)
    with open(descriptor, "rb") as file:
        data = file.read(limit)
    return Content(data, os.stat(_path(found, name)), {})


def _write(
    found: Found,
    data: bytes,
    *,
    mode: int,
    owner: tuple[int, int],
    replaces: object = None,
    guard: Callable[[], None] | None = None,
    name: str | None = None,
) -> None:
    del replaces, guard
    part = _path(found, name) + ".part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    os.chown(part, *owner)
    os.chmod(part, mode)
    os.rename(part, _path(found, name))


def _write_over(found: Found, data: bytes, *, name: str | None = None, **_named: object) -> None:
    descriptor = os.open(_path(found, name), os.O_WRONLY | os.O_TRUNC)
    with open(descriptor, "wb") as file:
        file.write(data)


def _info_of(path: Path, *, follow: bool = True) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError:
        return None


def _remove(found: Found, name: str) -> None:
    os.unlink(_path(found, name))


def _read_in(_directory: int, path: Path, limit: int) -> Any:
    return foreign_search.read_foreign(path, limit)


def _search(found: Found, path: Path, limit: int) -> Any:
    return foreign_search.ForeignFile(path, _read(found, limit).data.decode("utf-8", "replace"))


REPLACED: Mapping[str, Callable[..., Any]] = {
    "walk": _walk,
    "open_directory": _open_directory,
    "open_regular": _open_regular,
    "read": _read,
    "write": _write,
    "write_over": _write_over,
    "info_of": _info_of,
    "remove": _remove,
    "names_in": lambda found: sorted(os.listdir(found.directory)),
    "_read_in": _read_in,
    "_read": _search,
}


@contextmanager
def protection_off() -> Iterator[None]:
    """Replace what the layer consists of, wherever its functions were imported."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (foreign_paths, foreign_files, foreign_search, envfile, pm2, core_pm2, mirror):
            for name, function in REPLACED.items():
                if hasattr(module, name) and not (name in ("_read", "_read_in") and module is not foreign_search):
                    patch.setattr(module, name, function)
        patch.setattr(Place, "difference", lambda _self, _now: "")
        yield

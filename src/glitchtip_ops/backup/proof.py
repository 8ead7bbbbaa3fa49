"""The proof of a backup: its dump is restored into a scratch database and compared with its manifest."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import IO, Any

from ..docker_stack import Container, DatabaseSession, Stack
from ..host_state import read_disk
from ..process import OpsError

#: Seconds that a dump or a restore may take.
DUMP_TIMEOUT = 3600.0
#: Bytes that must be free at least, however small the database is.
SMALLEST_NEED = 64 * 2**20
_SCRATCH = "glitchtip_verify_"
_PGDATA = "/var/lib/postgresql/data"

# Tables and the partitions that hold the rows; a partitioned parent has none of its own.
_COUNT_ROWS = r"""
SELECT format('SELECT %L, count(*) FROM %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.deptype = 'e')
ORDER BY n.nspname, c.relname \gexec"""


def compare_tables(expected: Mapping[str, int], restored: Mapping[str, int]) -> list[str]:
    """Differences between the manifest's row counts and those of the restored database, one sentence each."""
    differences = [f"table {name} is missing" for name in sorted(set(expected) - set(restored))]
    differences += [f"table {name} is not in the manifest" for name in sorted(set(restored) - set(expected))]
    differences += [
        f"table {name} has {restored[name]} rows instead of {expected[name]}"
        for name in sorted(set(expected) & set(restored))
        if restored[name] != expected[name]
    ]
    return differences


def count_rows(session: DatabaseSession) -> dict[str, int]:
    """Rows of every table and partition that holds any, by ``schema.name``."""
    return {row[0]: int(row[1]) for row in session.execute(_COUNT_ROWS)}


class Prover:
    """Restores dumps beside the database of one stack; ``postgres`` is the name of its service."""

    def __init__(self, stack: Stack, postgres: str, clock: Callable[[], datetime]) -> None:
        self._stack = stack
        self._service = postgres
        self._clock = clock

    def prove(self, name: str, manifest: Mapping[str, Any], dump: IO[bytes]) -> dict[str, Any]:
        """Restore the dump of backup ``name`` into a scratch database and compare it with ``manifest``.

        The scratch database is dropped whatever happens, as are those of earlier runs that were killed.
        Returns ``{"name", "verified_at", "tables", "rows", "stack_id", "server_version"}``. Raises OpsError when
        anything differs.
        """
        postgres = self._stack.container(self._service)
        version = self._prepare(postgres, name, manifest)
        scratch = f"{_SCRATCH}{self._clock():%Y%m%d%H%M%S}_{secrets.token_hex(3)}"
        try:
            self._stack.database_run(postgres, ["createdb", "-T", "template0", scratch], timeout=60)
            self._restore(postgres, scratch, dump)
            with self._stack.database_session(postgres, scratch) as session:
                restored = count_rows(session)
        finally:
            self._drop(postgres, scratch)
        expected = {str(table): int(rows) for table, rows in manifest["tables"].items()}
        differences = compare_tables(expected, restored)
        if differences:
            more = f", and {len(differences) - 1} more differences" if len(differences) > 1 else ""
            raise OpsError(f"backup {name} does not restore to what it should hold: {differences[0]}{more}")
        return {
            "name": name,
            "verified_at": self._clock().isoformat(timespec="seconds"),
            "tables": len(restored),
            "rows": sum(restored.values()),
            "stack_id": str(manifest.get("stack_id") or ""),
            "server_version": version,
        }

    def _prepare(self, postgres: Container, name: str, manifest: Mapping[str, Any]) -> str:
        """Remove earlier scratch databases; the server's version. Raises OpsError when a restore cannot work."""
        with self._stack.database_session(postgres) as session:
            ((version,),) = session.execute("SELECT current_setting('server_version');")
            ((size,),) = session.execute("SELECT pg_database_size(current_database());")
            leftovers = session.execute(
                f"SELECT datname FROM pg_database WHERE starts_with(datname::text, '{_SCRATCH}');"
            )
        if int(version.split(".", 1)[0]) < int(str(manifest["server_version"]).split(".", 1)[0]):
            raise OpsError(
                f"backup {name} is of PostgreSQL {manifest['server_version']}, this one is {version}"
            )
        self._require_space(postgres, int(size))
        for (leftover,) in leftovers:
            self._drop(postgres, leftover)
        return version

    def _restore(self, postgres: Container, database: str, dump: IO[bytes]) -> None:
        self._stack.database_run(
            postgres,
            ["pg_restore", "-e", "-1", "--no-owner", "--no-privileges", "-d", database],
            timeout=DUMP_TIMEOUT,
            stdin=dump,
        )

    def _drop(self, postgres: Container, database: str) -> None:
        if not database.startswith(_SCRATCH):
            raise OpsError(f"refused to drop {database}: it is not a scratch database")
        self._stack.database_run(postgres, ["dropdb", "--if-exists", "--force", database], timeout=60)

    def _require_space(self, postgres: Container, size: int) -> None:
        source = self._stack.volume_source(postgres, _PGDATA)
        if source is None or not source.exists():
            return
        free, need = read_disk(source).free, max(SMALLEST_NEED, size + size // 2)
        if free < need:
            raise OpsError(
                f"the proof by restore needs {need // 2**20} MiB beside the database, {free // 2**20} MiB are free"
            )

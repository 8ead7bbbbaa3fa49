"""PostgreSQL: one small connection pool, three query helpers, the schema.

A pooled connection that the server closed fails the first query that gets it (one HTTP 500 per pooled
connection after a PostgreSQL restart, as measured on the 5.2 line) unless ``DATABASE_CONN_HEALTH_CHECKS``
is set. Queries outside :func:`transaction` commit by themselves.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from .settings import Settings

Row = dict[str, Any]
Params = Sequence[Any] | Mapping[str, Any] | None
Connection = psycopg.Connection[Row]

#: How many days ahead partitions of the event tables are made.
PARTITION_DAYS_AHEAD = 7
PARTITIONED = ("issue_events_issueevent", "issue_events_issuetag", "uptime_monitorcheck")
#: Tables for which it is another number.
DAYS_AHEAD = {"uptime_monitorcheck": 4}

_pool: ConnectionPool[Connection] | None = None
_current: ContextVar[Connection | None] = ContextVar("connection", default=None)


def open_pool(settings: Settings) -> None:
    """Open the pool without waiting for the server: a web process starts (and is "healthy") without a
    database."""
    global _pool
    _pool = ConnectionPool(
        settings.database_url,
        connection_class=Connection,
        kwargs={"row_factory": dict_row, "autocommit": True, "application_name": "glitchtip"},
        min_size=min(settings.pool_min, settings.pool_max),
        max_size=settings.pool_max,
        timeout=8,
        check=ConnectionPool.check_connection if settings.pool_health_checks else None,
        open=False,
    )
    _pool.open(wait=False)


def close_pool() -> None:
    """Close every connection; harmless when the pool was never opened."""
    global _pool
    if _pool is not None:
        _pool.close()
        _pool = None


@contextmanager
def connection() -> Iterator[Connection]:
    """The connection of the surrounding :func:`transaction`, else one from the pool."""
    current = _current.get()
    if current is not None:
        yield current
        return
    if _pool is None:
        raise RuntimeError("open_pool() was not called")
    with _pool.connection() as conn:
        yield conn


@contextmanager
def transaction() -> Iterator[Connection]:
    """Run everything inside on one connection, in one transaction (nested: a savepoint)."""
    with connection() as conn, conn.transaction():
        token = _current.set(conn)
        try:
            yield conn
        finally:
            _current.reset(token)


def rows(sql: str, params: Params = None) -> list[Row]:
    """All rows of a query."""
    with connection() as conn:
        return conn.execute(sql.encode(), params).fetchall()


def one(sql: str, params: Params = None) -> Row | None:
    """The first row of a query, or None."""
    with connection() as conn:
        return conn.execute(sql.encode(), params).fetchone()


def must(sql: str, params: Params = None) -> Row:
    """The first row of a query that always has one (``INSERT ... RETURNING``, aggregates).

    Raises :class:`LookupError` if there is none.
    """
    row = one(sql, params)
    if row is None:
        raise LookupError("query returned no row")
    return row


def execute(sql: str, params: Params = None) -> int:
    """Run a statement; the number of rows that it touched."""
    with connection() as conn:
        return conn.execute(sql.encode(), params).rowcount


def migrate() -> list[str]:
    """Create what is missing. Safe to repeat. Returns the names of the migrations applied now."""
    applied = []
    with transaction():
        execute("SELECT pg_advisory_xact_lock(5200620)")
        execute(
            "CREATE TABLE IF NOT EXISTS django_migrations (id bigserial PRIMARY KEY, app text NOT NULL,"
            " name text NOT NULL, applied timestamptz NOT NULL DEFAULT now(), UNIQUE (app, name))"
        )
        done = {row["name"] for row in rows("SELECT name FROM django_migrations WHERE app = 'standin'")}
        for path in sorted((Path(__file__).parent / "migrations").glob("*.sql")):
            if path.stem in done:
                continue
            with connection() as conn:
                conn.execute(path.read_bytes())
            execute("INSERT INTO django_migrations (app, name) VALUES ('standin', %s)", [path.stem])
            applied.append(path.stem)
    return applied


def create_cache_table() -> None:
    """The cache table that PostgreSQL needs when it is cache, too."""
    execute(
        "CREATE TABLE IF NOT EXISTS django_cache"
        " (cache_key text PRIMARY KEY, value text NOT NULL, expires timestamptz NOT NULL)"
    )


def partition_name(table: str, day: dt.date) -> str:
    """``issue_events_issueevent_2026_nov_21``."""
    return f"{table}_{day:%Y}_{day:%b}_{day:%d}".lower()


def ensure_partitions(today: dt.date | None = None) -> int:
    """Make the day partitions from today to as many days ahead as the table has; the number made now."""
    today = today or dt.datetime.now(dt.UTC).date()
    made = 0
    for table in PARTITIONED:
        for ahead in range(DAYS_AHEAD.get(table, PARTITION_DAYS_AHEAD) + 1):
            day = today + dt.timedelta(days=ahead)
            name = partition_name(table, day)
            if must("SELECT to_regclass(%s) IS NOT NULL AS there", [name])["there"]:
                continue
            following = day + dt.timedelta(days=1)
            execute(
                f"CREATE TABLE {name} PARTITION OF {table}"
                f" FOR VALUES FROM ('{day} 00:00:00+00') TO ('{following} 00:00:00+00')"
            )
            made += 1
    return made


def drop_partitions(older_than_days: int, today: dt.date | None = None) -> list[str]:
    """Drop the partitions past the life time of events; their names."""
    today = today or dt.datetime.now(dt.UTC).date()
    limit = today - dt.timedelta(days=older_than_days)
    dropped = []
    for table in PARTITIONED:
        for row in rows(
            "SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = %s::regclass",
            [table],
        ):
            day = dt.datetime.strptime(row["name"].removeprefix(f"{table}_"), "%Y_%b_%d").date()
            if day < limit:
                execute(f"DROP TABLE {row['name']}")
                dropped.append(row["name"])
    return dropped

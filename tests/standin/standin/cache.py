"""The shared cache: sessions, the duplicate filter, the 30 s block, login throttling. Valkey, else
PostgreSQL.

With PostgreSQL the table ``django_cache`` must exist (``bin/run-migrate.sh`` with the empty ``VALKEY_URL``
makes it); without it every use raises, which is an HTTP 500.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import redis

from . import db
from .settings import Settings


class Cache(Protocol):
    """String values under string keys, each with a life time in seconds."""

    def get(self, key: str) -> str | None:
        """The value, or None when missing or expired."""

    def set(self, key: str, value: str, seconds: int) -> None:
        """Store for so many seconds."""

    def add(self, key: str, value: str, seconds: int) -> bool:
        """Store only if the key is free; whether it was."""

    def increase(self, key: str, seconds: int) -> int:
        """Count one up; a new counter lives for so many seconds. Returns the new count."""

    def ttl(self, key: str) -> int:
        """Seconds that the key still lives; 0 when it is not there."""

    def delete(self, key: str) -> None:
        """Forget the key."""

    def collect(self, key: str, numbers: Iterable[int], seconds: int, /) -> None:
        """Add numbers to a set that lives for so many seconds."""

    def drain(self, key: str, /) -> list[int] | None:
        """Take the numbers of a set out of it; None where none are collected (PostgreSQL is the cache)."""


class ValkeyCache:
    """:class:`Cache` in Valkey (or Redis), keys prefixed ``:1:``."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client

    def get(self, key: str) -> str | None:
        value = self._client.get(f":1:{key}")
        return None if value is None else str(value)

    def set(self, key: str, value: str, seconds: int) -> None:
        self._client.set(f":1:{key}", value, ex=seconds)

    def add(self, key: str, value: str, seconds: int) -> bool:
        return bool(self._client.set(f":1:{key}", value, ex=seconds, nx=True))

    def increase(self, key: str, seconds: int) -> int:
        name = f":1:{key}"
        self._client.set(name, 0, ex=seconds, nx=True)
        return int(self._client.incr(name))

    def ttl(self, key: str) -> int:
        return max(0, int(self._client.ttl(f":1:{key}")))

    def delete(self, key: str) -> None:
        self._client.delete(f":1:{key}")

    def collect(self, key: str, numbers: Iterable[int], seconds: int, /) -> None:
        found = list(numbers)
        if found and self._client.sadd(key, *found):
            self._client.expire(key, seconds)

    def drain(self, key: str, /) -> list[int] | None:
        with self._client.pipeline(transaction=True) as both:
            members, _ = both.smembers(key).delete(key).execute()
        return sorted(int(member) for member in members)


class DatabaseCache:
    """:class:`Cache` in the table ``django_cache``."""

    def get(self, key: str) -> str | None:
        row = db.one("SELECT value FROM django_cache WHERE cache_key = %s AND expires > now()", [key])
        return None if row is None else str(row["value"])

    def set(self, key: str, value: str, seconds: int) -> None:
        db.execute(
            "INSERT INTO django_cache VALUES (%s, %s, now() + make_interval(secs => %s))"
            " ON CONFLICT (cache_key) DO UPDATE SET value = excluded.value, expires = excluded.expires",
            [key, value, seconds],
        )

    def add(self, key: str, value: str, seconds: int) -> bool:
        return bool(
            db.execute(
                "INSERT INTO django_cache VALUES (%s, %s, now() + make_interval(secs => %s))"
                " ON CONFLICT (cache_key) DO UPDATE SET value = excluded.value, expires = excluded.expires"
                " WHERE django_cache.expires <= now()",
                [key, value, seconds],
            )
        )

    def increase(self, key: str, seconds: int) -> int:
        row = db.must(
            "INSERT INTO django_cache VALUES (%s, '1', now() + make_interval(secs => %s))"
            " ON CONFLICT (cache_key) DO UPDATE SET"
            " value = CASE WHEN django_cache.expires > now() THEN (django_cache.value::bigint + 1)::text"
            " ELSE '1' END,"
            " expires = CASE WHEN django_cache.expires > now() THEN django_cache.expires"
            " ELSE excluded.expires END RETURNING value",
            [key, seconds],
        )
        return int(row["value"])

    def ttl(self, key: str) -> int:
        row = db.one(
            "SELECT greatest(0, extract(epoch FROM expires - now()))::int AS ttl"
            " FROM django_cache WHERE cache_key = %s",
            [key],
        )
        return 0 if row is None else int(row["ttl"])

    def delete(self, key: str) -> None:
        db.execute("DELETE FROM django_cache WHERE cache_key = %s", [key])

    def collect(self, _: str, __: Iterable[int], ___: int, /) -> None:
        """Nothing: the alerts then look at every issue."""

    def drain(self, _: str, /) -> list[int] | None:
        return None


def connect(settings: Settings) -> redis.Redis | None:
    """A Valkey client (it connects on first use), or None when PostgreSQL does its work."""
    if not settings.valkey_url:
        return None
    return redis.Redis.from_url(settings.valkey_url, decode_responses=True, socket_timeout=10)

"""Settings of one stand-in process, read once from the environment under GlitchTip's own names.

Every name is also read from a file: ``NAME_FILE=/path``. The file's content is taken as it is, so a
trailing newline stays in a secret (the 5.2 line was seen to do so); URL-typed values tolerate it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

VERSIONS = {"5.2": "5.2.0", "6.2": "6.2.6"}


class ImproperlyConfigured(Exception):  # noqa: N818 - the name that Django prints
    """A setting makes no sense; the process must not start."""


@dataclass(frozen=True)
class Settings:
    """All that the environment decides. Intervals in seconds, sizes in bytes, retention in days.

    `answer_delay` (STANDIN_DELAY_MS) is no setting of GlitchTip: every answer is held back that long, so that
    a benchmark has a server of known speed.
    """

    line: str
    version: str
    secret_key: str
    database_url: str
    valkey_url: str
    domain: str
    user_registration: bool
    social_registration: bool
    organization_creation: bool
    email_url: str
    default_from_email: str
    max_event_life_days: int
    alert_interval: int
    max_issues_per_alert: int
    max_unzipped_payload: int
    event_freeze: bool
    csrf_trusted_origins: tuple[str, ...]
    session_cookie_secure: bool
    session_cookie_age: int
    pool_min: int
    pool_max: int
    pool_health_checks: bool
    allow_private_ips: bool
    uptime_allow_private_ips: bool
    instance_name: str | None
    granian: bool
    granian_wsgi: bool
    extra_headers: tuple[tuple[str, str], ...]
    worker_window: int
    answer_delay: float

    @property
    def celery(self) -> bool:
        """Whether background work follows the Celery conventions of the 5.2 line."""
        return self.line == "5.2"


def _read(env: Mapping[str, str], name: str, default: str) -> str:
    path = env.get(f"{name}_FILE")
    if path:
        return Path(path).read_text()
    return env.get(name, default)


def _flag(env: Mapping[str, str], name: str, default: bool) -> bool:
    return _read(env, name, str(default)).strip().lower() in {"true", "1", "on", "yes", "y", "ok"}


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    value = _read(env, name, str(default)).strip()
    try:
        return int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a number, not {value!r}") from None


def _database_url(env: Mapping[str, str]) -> str:
    host = _read(env, "DATABASE_HOST", "").strip()
    if not host:
        url = _read(env, "DATABASE_URL", "postgres://postgres:postgres@postgres:5432/postgres").strip()
        return url.replace("postgres://", "postgresql://", 1)
    user = _read(env, "DATABASE_USER", "postgres").strip()
    password = _read(env, "DATABASE_PASSWORD", "")  # a trailing newline stays: it is part of the password
    name = _read(env, "DATABASE_NAME", "postgres").strip()
    port = _read(env, "DATABASE_PORT", "5432").strip()
    secret = f":{quote(password, safe='')}" if password else ""
    return f"postgresql://{quote(user, safe='')}{secret}@{host}:{port}/{quote(name, safe='')}"


def _valkey_url(env: Mapping[str, str]) -> str:
    for prefix in ("VALKEY", "REDIS"):
        if env.get(f"{prefix}_HOST"):
            password = _read(env, f"{prefix}_PASSWORD", "")
            secret = f":{quote(password, safe='')}@" if password else ""
            port = _read(env, f"{prefix}_PORT", "6379").strip()
            number = _read(env, f"{prefix}_DATABASE", "0").strip()
            return f"redis://{secret}{env[f'{prefix}_HOST']}:{port}/{number}"
    for name in ("VALKEY_URL", "REDIS_URL"):
        if name in env or f"{name}_FILE" in env:
            url = _read(env, name, "").strip()
            if url:
                return url.replace("valkey://", "redis://", 1)
    if "VALKEY_URL" in env or "REDIS_URL" in env:
        return ""  # empty, not unset: PostgreSQL is queue and cache
    return "redis://redis:6379/0"


def _domain(env: Mapping[str, str]) -> str:
    for name in ("GLITCHTIP_URL", "APP_URL", "GLITCHTIP_DOMAIN"):
        value = _read(env, name, "").strip()
        if value:
            break
    else:
        value = "http://localhost:8000"
    if urlsplit(value).scheme not in {"http", "https"}:
        raise ImproperlyConfigured("GLITCHTIP_DOMAIN must start with http or https")
    return value.rstrip("/")


def _uwsgi_headers(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    name, colon, value = env.get("UWSGI_ADD_HEADER", "").partition(":")
    return ((name.strip(), value.strip()),) if colon else ()


def _window(env: Mapping[str, str], line: str) -> int:
    """How many messages the worker may hold at once.

    5.2 line: concurrency x prefetch multiplier; Celery's defaults are one process a core and 4, which is
    why its default worker manages about 4 events a second on 2 cores. The all-in-one script reads no
    ``CELERY_*``. 6.2 line: one full batch.
    """
    if line != "5.2":
        return 100
    if env.get("STANDIN_ALL_IN_ONE"):
        return 4 * (os.cpu_count() or 1)
    concurrency = int(env.get("CELERY_WORKER_CONCURRENCY") or os.cpu_count() or 1)
    autoscale = env.get("CELERY_WORKER_AUTOSCALE")
    if autoscale:
        concurrency = max(int(part) for part in autoscale.split(","))
    return concurrency * int(env.get("CELERY_WORKER_PREFETCH_MULTIPLIER") or 4)


def load(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from ``env`` (default: the process environment).

    Raises :class:`ImproperlyConfigured` for a value that the real server refuses at start.
    """
    env = os.environ if env is None else env
    line = env.get("STANDIN_LINE", "5.2")
    if line not in VERSIONS:
        raise ImproperlyConfigured(f"STANDIN_LINE must be one of {', '.join(VERSIONS)}, not {line!r}")
    creation = (
        "ENABLE_OPEN_USER_REGISTRATION"
        if env.get("ENABLE_OPEN_USER_REGISTRATION")
        else ("ENABLE_ORGANIZATION_CREATION")
    )
    life = _number(env, "GLITCHTIP_MAX_EVENT_LIFE_DAYS", 90)
    if line == "6.2":
        life = _number(env, "GLITCHTIP_EVENT_RETENTION_DAYS", _number(env, "GLITCHTIP_RETENTION_DAYS", life))
    granian = line == "6.2" or _flag(env, "USE_GRANIAN", False)
    origins = _read(env, "CSRF_TRUSTED_ORIGINS", "").strip()
    return Settings(
        line=line,
        version=_read(env, "GLITCHTIP_VERSION", VERSIONS[line]).strip(),
        secret_key=_read(env, "SECRET_KEY", "change_me"),
        database_url=_database_url(env),
        valkey_url=_valkey_url(env),
        domain=_domain(env),
        user_registration=(registration := _flag(env, "ENABLE_USER_REGISTRATION", True)),
        social_registration=_flag(env, "ENABLE_SOCIAL_APPS_USER_REGISTRATION", registration),
        organization_creation=_flag(env, creation, False),
        email_url=_read(env, "EMAIL_URL", "smtp://localhost:25").strip(),
        default_from_email=_read(env, "DEFAULT_FROM_EMAIL", "webmaster@localhost").strip(),
        max_event_life_days=life,
        alert_interval=_number(env, "ALERT_NOTIFICATION_INTERVAL", 60),
        max_issues_per_alert=_number(env, "MAX_ISSUES_PER_ALERT", 3),
        max_unzipped_payload=_number(env, "GLITCHTIP_MAX_UNZIPPED_PAYLOAD_SIZE", 2_621_440),
        event_freeze=_flag(env, "MAINTENANCE_EVENT_FREEZE", False),
        csrf_trusted_origins=tuple(part.strip().rstrip("/") for part in origins.split(",") if part.strip()),
        session_cookie_secure=_flag(env, "SESSION_COOKIE_SECURE", False),
        session_cookie_age=_number(env, "SESSION_COOKIE_AGE", 14 * 86400),
        pool_min=_number(env, "DATABASE_POOL_MIN_SIZE", 2),
        pool_max=_number(env, "DATABASE_POOL_MAX_SIZE", 10),
        pool_health_checks=_flag(env, "DATABASE_CONN_HEALTH_CHECKS", False),
        allow_private_ips=line == "5.2" or _flag(env, "GLITCHTIP_ALLOW_PRIVATE_IPS", False),
        uptime_allow_private_ips=line == "5.2" or _flag(env, "GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS", False),
        instance_name=_read(env, "GLITCHTIP_INSTANCE_NAME", "").strip() or None,
        granian=granian,
        granian_wsgi=line == "5.2" and granian and not _flag(env, "USE_ASYNC_SERVER", False),
        extra_headers=() if granian else _uwsgi_headers(env),
        worker_window=_window(env, line),
        answer_delay=_number(env, "STANDIN_DELAY_MS", 0) / 1000,
    )

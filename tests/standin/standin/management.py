"""The commands of ``manage.py`` that the container contract needs."""

from __future__ import annotations

import argparse
import os
import sys

import psycopg

from . import auth, db
from . import state as states
from .settings import ImproperlyConfigured, Settings, load


class CommandError(Exception):
    """A command cannot do what it was asked; its text is for the operator."""


def migrate(settings: Settings) -> list[str]:
    """Schema, cache table (only where PostgreSQL is the cache) and partitions. Safe to repeat."""
    db.open_pool(settings)
    try:
        applied = db.migrate()
        if not settings.valkey_url:
            db.create_cache_table()
        db.ensure_partitions()
        if applied:
            _initial_user()
    finally:
        db.close_pool()
    return applied


def _initial_user() -> None:
    """``INITIAL_USER_*``, read by the very first migration only: a superuser, and a token that has
    org:admin only."""
    email, password = os.environ.get("INITIAL_USER_EMAIL"), os.environ.get("INITIAL_USER_PASSWORD")
    if not email or not password:
        return
    user = db.must(
        "INSERT INTO users_user (email, password, is_superuser) VALUES (%s, %s, true) RETURNING id",
        [email, auth.hash_password(password)],
    )
    token = os.environ.get("INITIAL_USER_AUTH_TOKEN")
    if token:
        db.execute(
            "INSERT INTO api_tokens_apitoken (user_id, token, scopes) VALUES (%s, %s, %s)",
            [user["id"], token[:64], auth.scope_bits(["org:admin"])],
        )


def _command_migrate(settings: Settings, arguments: list[str]) -> None:  # noqa: ARG001
    applied = migrate(settings)
    print("Running migrations:")
    for name in applied:
        print(f"  Applying standin.{name}... OK")
    if not applied:
        print("  No migrations to apply.")


def _command_create_cache_table(settings: Settings, arguments: list[str]) -> None:  # noqa: ARG001
    if settings.valkey_url:
        return
    db.open_pool(settings)
    db.create_cache_table()


def _command_partition(settings: Settings, arguments: list[str]) -> None:  # noqa: ARG001
    db.open_pool(settings)
    print(f"Operations applied: {db.ensure_partitions()} partitions made.")


def _command_create_superuser(settings: Settings, arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="manage.py createsuperuser")
    parser.add_argument("--noinput", "--no-input", action="store_true")
    parser.add_argument("--email", default=os.environ.get("DJANGO_SUPERUSER_EMAIL"))
    options = parser.parse_args(arguments)
    if not options.noinput:
        raise CommandError("this server has no terminal; use --noinput.")
    if not options.email:
        raise CommandError("You must use --email with --noinput.")
    password = os.environ.get("DJANGO_SUPERUSER_PASSWORD")
    db.open_pool(settings)
    try:
        db.execute(
            "INSERT INTO users_user (email, password, is_superuser) VALUES (%s, %s, true)",
            [options.email, auth.hash_password(password) if password else "!"],
        )
    except psycopg.errors.UniqueViolation:
        raise CommandError("Error: That email is already taken.") from None
    print("Superuser created successfully.")


def _command_clear_cache(settings: Settings, arguments: list[str]) -> None:  # noqa: ARG001
    current = states.start(settings)
    if settings.valkey_url:
        from .cache import connect

        client = connect(settings)
        if client is not None:
            for key in client.scan_iter(":1:*"):
                client.delete(key)
    else:
        db.execute("DELETE FROM django_cache")
    del current


COMMANDS = {
    "clear_cache": _command_clear_cache,
    "createcachetable": _command_create_cache_table,
    "createsuperuser": _command_create_superuser,
    "maintain_partitions": _command_partition,
    "migrate": _command_migrate,
    "pgpartition": _command_partition,
}


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    name = arguments[0] if arguments else "help"
    if name == "help":
        print("Available subcommands:", *sorted(COMMANDS), sep="\n    ")
        return 0
    command = COMMANDS.get(name)
    if command is None:
        print(f"Unknown command: '{name}'\nType 'manage.py help' for usage.", file=sys.stderr)
        return 1
    try:
        command(load(), arguments[1:])
    except CommandError as error:
        print(f"CommandError: {error}", file=sys.stderr)
        return 1
    except ImproperlyConfigured as error:
        print(f"ImproperlyConfigured: {error}", file=sys.stderr)
        return 1
    except psycopg.Error as error:
        print(f"django.db.utils.OperationalError: {str(error).strip()}", file=sys.stderr)
        return 1
    finally:
        db.close_pool()
    return 0

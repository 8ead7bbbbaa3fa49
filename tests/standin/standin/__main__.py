"""``python -m standin web|worker|beat|worker_with_beat|all_in_one``: what the scripts in ``bin/`` start."""

from __future__ import annotations

import logging
import os
import sys
import threading

from . import db, management, server, state, vtasks, worker
from .settings import ImproperlyConfigured, Settings, load

WORKERS = {"worker": (True, False), "beat": (False, True), "worker_with_beat": (True, True)}
#: The only values with which the all-in-one process of the 6.2 line does not migrate.
SKIPS_INIT = ("True", "true", "1")


def _address(line: str, granian: bool) -> tuple[str, int]:
    """Where the web process listens: ``PORT`` for uWSGI (default 8080), ``GRANIAN_PORT`` for granian (8000); the
    6.2 line takes ``PORT`` when the other is not set."""
    host = "0.0.0.0"
    if line == "5.2":
        value = os.environ.get("GRANIAN_PORT", "8000") if granian else os.environ.get("PORT", "8080")
    else:
        value = os.environ.get("GRANIAN_PORT") or os.environ.get("PORT") or "8000"
    if ":" in value:
        host, _, value = value.rpartition(":")
    return host or "0.0.0.0", int(value)


def _write_logs(settings: Settings, role: str) -> None:
    """5.2 line: what :mod:`logging` says, with times and levels. 6.2 line: messages alone, from ``LOG_LEVEL`` on
    (INFO for web and worker, WARNING for the all-in-one process, as its scripts set it).

    The lines of ``glitchtip.access`` are for the tests, which count requests by them: they are the same on both."""
    full = "%(asctime)s %(levelname)s %(name)s %(message)s"
    if settings.celery:
        level, form = "INFO", full
    else:
        level = settings.log_level or ("WARNING" if role == "all_in_one" else "INFO")
        form = "%(message)s"
    logging.basicConfig(level=level, stream=sys.stdout if settings.celery else sys.stderr, format=form)
    access, handler = logging.getLogger("glitchtip.access"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(full))
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False


def main(arguments: list[str]) -> int:
    """Run one role until SIGTERM; the exit status."""
    role = arguments[0] if arguments else ""
    try:
        settings = load()
        _write_logs(settings, role)
    except (ImproperlyConfigured, OSError) as error:
        print(f"ImproperlyConfigured: {error}", file=sys.stderr)
        return 1
    if role == "web":
        server.run(settings, *_address(settings.line, settings.granian))
    elif role in WORKERS:
        state.start(settings)
        consume, beat = WORKERS[role]
        if settings.celery:
            worker.run(consume=consume, beat=beat)
        else:
            vtasks.run()
    elif role == "all_in_one":
        if settings.celery or os.environ.get("SKIP_INIT") not in SKIPS_INIT:
            management.migrate(settings)
        state.start(settings)
        stop = threading.Event()
        thread = (
            threading.Thread(
                target=worker.run, kwargs={"consume": True, "beat": True, "stop": stop, "signals": False}
            )
            if settings.celery
            else threading.Thread(target=vtasks.run, kwargs={"stop": stop, "split": False})
        )
        thread.start()
        host, port = _address("6.2", True) if settings.line != "5.2" else ("0.0.0.0", 8000)
        server.build(settings, host, port).run()
        stop.set()
        thread.join(timeout=20)
    else:
        print(f"unknown role {role!r}", file=sys.stderr)
        return 1
    db.close_pool()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

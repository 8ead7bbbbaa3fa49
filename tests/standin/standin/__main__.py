"""``python -m standin web|worker|beat|worker_with_beat|all_in_one``: what the scripts in ``bin/`` start."""

from __future__ import annotations

import logging
import os
import sys
import threading

from . import db, management, server, state, worker
from .settings import ImproperlyConfigured, load

WORKERS = {"worker": (True, False), "beat": (False, True), "worker_with_beat": (True, True)}


def _address(line: str, granian: bool) -> tuple[str, int]:
    """Where the web process listens: ``PORT`` for uWSGI (default 8080), ``GRANIAN_PORT`` for granian
    (8000)."""
    host = "0.0.0.0"
    value = (
        os.environ.get("GRANIAN_PORT", "8000") if granian or line != "5.2" else os.environ.get("PORT", "8080")
    )
    if ":" in value:
        host, _, value = value.rpartition(":")
    return host or "0.0.0.0", int(value)


def main(arguments: list[str]) -> int:
    """Run one role until SIGTERM; the exit status."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        settings = load()
    except (ImproperlyConfigured, OSError) as error:
        print(f"ImproperlyConfigured: {error}", file=sys.stderr)
        return 1
    role = arguments[0] if arguments else ""
    if role == "web":
        server.run(settings, *_address(settings.line, settings.granian))
    elif role in WORKERS:
        state.start(settings)
        consume, beat = WORKERS[role]
        worker.run(consume=consume, beat=beat or settings.line != "5.2")
    elif role == "all_in_one":
        if settings.line == "5.2" or not os.environ.get("SKIP_INIT"):
            management.migrate(settings)
        state.start(settings)
        stop = threading.Event()
        thread = threading.Thread(
            target=worker.run, kwargs={"consume": True, "beat": True, "stop": stop, "signals": False}
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

"""The mirror: an nginx of its own on this host, which passes envelopes to the old tracker and copies them to the new.

While the mirror stands, a service's DSN is the old one with the address replaced by the listener's
(:func:`mirror_dsn`): same key, same project. The primary leg therefore reaches the old tracker unchanged and its
answer reaches the SDK; the mirrored leg goes to the new tracker under that one's key and project.

What holds it together, each measured by ``tests/integration/mirror`` and ``tests/bench/mirror.py``:

- ``keepalive_timeout 0``: nginx ends a request only when its mirrored leg has ended, so on a connection that is
  kept, a slow new tracker would delay every following envelope;
- short timeouts and at most ``concurrent`` mirrored legs at a time: a new tracker that hangs costs a bounded
  number of connections, never the primary leg;
- addresses in variables plus ``resolver``: a literal host is resolved only when nginx starts; nginx's resolver does
  not read /etc/hosts, so an address from there is written into the configuration;
- ``proxy_ignore_client_abort``: a copy goes on when the product's process ends right after its answer;
- requests are never written to nginx's error log (its lines hold the whole request line, with the key); both legs
  are counted in one log of JSON lines without a key.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from glitchtip_core.dsn import Dsn, shown
from glitchtip_core.files import fsync_directory, write_new
from glitchtip_core.foreign_files import read_text
from glitchtip_core.http import HttpError, Trouble, check_reachable, short_text
from glitchtip_core.process import SYSTEM_PATH, run
from glitchtip_core.transaction.store import Store

from .config import Config
from .envfile import MAX_BYTES, EnvFile
from .errors import CutoverError, IncompleteError, unexpected
from .host import Host
from .mirror_routes import (
    Names,
    NginxSettings,
    Route,
    keys,
    origin,
    read_names,
    routes_of,
    settings_of,
)
from .mirror_text import HEALTH, render, revision_of
from .snapshot import Snapshot

Result = dict[str, Any]
_RELOAD_WAIT = 10.0
_REACH_WAIT = 10.0


# ------------------------------------------------------------------------------------------ what is touched


class Server(Protocol):
    """The nginx that runs the configuration."""

    def check(self, path: Path) -> str:
        """What nginx finds wrong with a configuration; empty when nothing."""

    def take(self) -> None:
        """Start with the configuration, or take it on without losing a request. Raises CutoverError."""

    def revision(self) -> str:
        """The revision of the configuration that answers now; empty when nothing answers."""


class SystemdNginx:
    """nginx under its own systemd unit, as its own user."""

    def __init__(self, settings: NginxSettings) -> None:
        self.settings = settings

    def check(self, path: Path) -> str:
        """``nginx -t`` as the user it runs as, so that no file of another owner is left behind."""
        done = run(
            [self.settings.nginx, "-t", "-q", "-c", path],
            environment={"PATH": SYSTEM_PATH},
            timeout=30,
            user=self.settings.user,
        )
        if done.code == 0:
            return ""
        told = [line for line in done.errors.splitlines() if "[emerg]" in line] or done.errors.splitlines()
        return told[-1].partition("[emerg] ")[2] or told[-1] if told else f"exit code {done.code}"

    def take(self) -> None:
        """``systemctl reload-or-restart``: workers of before end their requests."""
        done = run(
            ["systemctl", "reload-or-restart", self.settings.unit],
            environment={"PATH": SYSTEM_PATH},
            timeout=60,
        )
        if done.code != 0:
            raise CutoverError(
                f"{self.settings.unit} does not start; look at journalctl -u {self.settings.unit}"
            )

    def revision(self) -> str:
        """The answer of the health page."""
        return short_text(self.settings.listen + HEALTH, timeout=2)


def reach(dsn: Dsn, settings: NginxSettings) -> None:
    """Connect to a tracker as nginx will, certificate included. Raises CutoverError with the reason."""
    host = dsn.host.strip("[]")
    port = dsn.port or (443 if dsn.scheme == "https" else 80)
    try:
        check_reachable(
            host,
            port,
            what=f"the old tracker {dsn.netloc}",
            timeout=_REACH_WAIT,
            secure=dsn.scheme == "https",
            ca_file=settings.ca_file,
        )
    except HttpError as error:
        if error.trouble is Trouble.CERTIFICATE:
            raise CutoverError(
                f"the certificate of {dsn.netloc} is not valid ({error.detail}), so the mirror would reach "
                f"nobody there; add its authority to {settings.ca_file}"
            ) from None
        if error.trouble is Trouble.AUTHORITIES:
            raise CutoverError(
                f"the certificate authorities in {settings.ca_file} cannot be read ({error.detail}); "
                "install ca-certificates"
            ) from None
        raise CutoverError(f"{error}, so nothing is put in front of it") from None


def _group_of(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        raise CutoverError(
            f"there is no user {user} on this host for the mirror; run the parallel run's role"
        ) from None


# ------------------------------------------------------------------------------------------------ commands


def configure(
    config: Config,
    host: Host,
    *,
    server: Server | None = None,
    names: Names | None = None,
    reaching: Callable[[Dsn, NginxSettings], None] = reach,
) -> Result:
    """Write the mirror's configuration and make nginx run it; a repeat changes nothing.

    The file is checked by nginx before it gets its name; when nginx does not take it on, the file of before is
    back. Nothing of a service is touched: that is ``apply --to mirror``. Returns ``{"changed", "listen",
    "revision", "path", "routes": [{"services", "old", "new"}]}`` without a key. Raises CutoverError (the previous
    configuration is active) or IncompleteError.
    """
    settings = settings_of(config)
    server = server or SystemdNginx(settings)
    store = Store(config.state_dir, monotonic=host.monotonic, sleep=host.sleep)
    with store.lock():
        found = routes_of(config, Snapshot(config.state_dir).before(), settings)
        text = render(found, settings, names if names is not None else read_names())
        result: Result = {
            "changed": False,
            "listen": settings.listen,
            "revision": revision_of(text),
            "path": str(settings.file),
            "routes": [route.shown() for route in found],
        }
        path = settings.file
        if not path.parent.is_dir():
            raise CutoverError(f"there is no directory {path.parent}; run the parallel run's role first")
        old = path.read_bytes() if path.exists() else None
        if old == text.encode() and server.revision() == result["revision"]:
            return result
        for tracker in {origin(route.old): route.old for route in found}.values():
            reaching(tracker, settings)
        owner = (os.geteuid(), _group_of(settings.user))
        candidate = path.with_name(path.name + ".new")
        try:
            write_new(candidate, text.encode(), mode=0o640, owner=owner)
            _check(candidate, server, list(found))
            put_back = partial(_put_back, host, server, path, old, owner)
            _take_on(host, server, candidate, path, put_back, result["revision"])
        finally:
            candidate.unlink(missing_ok=True)
    host.progress(f"the mirror listens on {settings.netloc}: {len(found)} DSN(s)")
    return {**result, "changed": True}


def _check(candidate: Path, server: Server, found: list[Route]) -> None:
    """Let nginx check a configuration before it gets its name. Raises CutoverError, without a key."""
    if problem := server.check(candidate):
        for key in {key for route in found for dsn in (route.old, route.new) for key in keys(dsn)}:
            problem = problem.replace(key, "***")
        raise CutoverError(f"nginx refuses the configuration of the mirror, nothing was changed: {problem}")


def _take_on(
    host: Host, server: Server, candidate: Path, path: Path, put_back: Callable[[], str], revision: str
) -> None:
    """Activate the candidate file and wait until nginx responds with it; on any failure restore the previous file.

    Raises CutoverError, or IncompleteError if nginx does not run with the previous file.
    """
    try:
        candidate.rename(path)
        fsync_directory(path.parent)
        server.take()
        _wait_for(host, server, revision)
    except Exception as error:
        reason = unexpected(error)
        try:
            told = put_back()
        except Exception as failure:
            raise IncompleteError(
                f"{reason}; and the mirror does not run with its configuration of before: {unexpected(failure)}"
            ) from error
        raise CutoverError(f"{reason}; {told}") from error


def _put_back(host: Host, server: Server, path: Path, old: bytes | None, owner: tuple[int, int]) -> str:
    """Restore the previous configuration, or its absence, and return that as a sentence. Raises CutoverError."""
    if old is None:
        path.unlink(missing_ok=True)
        fsync_directory(path.parent)
        return "the configuration was taken away again"
    write_new(path, old, mode=0o640, owner=owner)
    server.take()
    _wait_for(host, server, revision_of(old.decode("utf-8", "replace")))
    return "the configuration of before is back and answers"


def _wait_for(host: Host, server: Server, revision: str) -> None:
    deadline = host.monotonic() + _RELOAD_WAIT
    while server.revision() != revision:
        if host.monotonic() >= deadline:
            raise CutoverError(f"nginx did not take the new configuration within {_RELOAD_WAIT:g} s")
        host.sleep(0.1)


def problem(config: Config, *, server: Server | None = None, names: Names | None = None) -> str:
    """Why services must not be switched to the mirror now, one sentence; empty when it stands with today's DSNs."""
    settings = settings_of(config)
    server = server or SystemdNginx(settings)
    advice = "run ai-admin-cutover mirror-config first"
    try:
        running = revision_of(settings.file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return f"the mirror is not configured on this host; {advice}"
    except CutoverError as error:
        return str(error)
    found = routes_of(config, Snapshot(config.state_dir).before(), settings)
    if running != revision_of(render(found, settings, names if names is not None else read_names())):
        return f"the mirror was configured for other DSNs or settings than today's; {advice}"
    if server.revision() != running:
        return f"nothing answers as the mirror at {settings.listen}; look at systemctl status {settings.unit}"
    return ""


def still_mirrored(config: Config, host: Host, settings: NginxSettings) -> list[str]:
    """Who reports to the mirror: env files and services whose DSN is at its listener."""
    found = []
    for path in config.env_files:
        try:
            there = shown(EnvFile(path, config.env_key).value()) == settings.netloc
        except CutoverError:
            # A file that the editor refuses may still be read by a service.
            there = settings.netloc in (read_text(path, MAX_BYTES) or "")
        if there:
            found.append(str(path))
    if host.manager.running:
        found += [
            process.name
            for process in host.manager.processes()
            if shown(process.environment.get(config.env_key)) == settings.netloc
        ]
    return sorted(set(found))


def remove(config: Config, host: Host) -> Result:
    """Take the mirror's configuration away; refuses while anything still reports to the mirror.

    The role then stops nginx and removes its unit. Returns ``{"changed", "path"}``. Raises CutoverError.
    """
    settings = settings_of(config)
    store = Store(config.state_dir, monotonic=host.monotonic, sleep=host.sleep)
    with store.lock():
        if users := still_mirrored(config, host, settings):
            raise CutoverError(
                f"{', '.join(users)} still report(s) to the mirror; leave it first with ai-admin-cutover apply "
                "or ai-admin-cutover rollback"
            )
        if not settings.file.exists():
            return {"changed": False, "path": str(settings.file)}
        settings.file.unlink()
        fsync_directory(settings.file.parent)
    return {"changed": True, "path": str(settings.file)}

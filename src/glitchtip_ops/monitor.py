"""``glitchtip-ops monitor``: is the tracker healthy, and somebody told when it is not.

Health is never ``/_health/`` (it answers 200 with PostgreSQL and Valkey both down, GlitchTip 5.2): it is
the settings document (read from the database) and a test event read back by its id (web, queue, worker).
Every check says one sentence. Trouble goes to the alert hooks once an hour at most per check, recovery once;
what a hook did not take is tried again at the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from glitchtip_api import Client
from glitchtip_core.files import append_line, lock, read_object, write_object
from glitchtip_core.memory import read_memory
from glitchtip_core.notify.throttle import Decision, decide
from glitchtip_core.notify.transport import NotSentError, try_twice
from glitchtip_core.notify.transports.webhook import post_document
from glitchtip_core.text import printable_document

from .backup import list_backups, verified_of_stack
from .cli import BAD_ANSWER, Outcome
from .docker_stack import Stack
from .drift import read_drift
from .host_state import read_disk, read_pm2
from .pipeline import Check, Pipeline, check_scheduler, guarded, is_line_6, read_scheduler_marks
from .probe import Probe, send_probe
from .process import OpsError, run
from .settings import Settings, load_settings, settings_directory
from .soak.health import check_soaks

_HOOK_TIMEOUT = 15.0
#: The two timers may meet; a quick check may be at a recovery (seconds).
_TURN = 240


def utc_now() -> datetime:
    """The clock of this module; tests hand in their own."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class MonitorConfig:
    """``monitor.json`` of role monitoring. Percentages 0 to 100, times in seconds unless named otherwise.

    ``pm2_home``, ``pm2_node``: "" means that they are derived from the user and from where ``pm2`` is. ``stack``: GlitchTip
    runs on this host; without it only the product is checked (``pm2_services``, ``cutover_command``).
    """

    stack: bool = True
    compose_project: str = "glitchtip"
    services: tuple[str, ...] = ("postgres", "valkey", "web", "worker")
    pm2_user: str = "root"
    pm2_home: str = ""
    pm2_binary: str = "/usr/local/bin/pm2"
    pm2_node: str = ""
    pm2_services: tuple[str, ...] = ()
    max_memory_percent: float = 90.0
    max_disk_percent: float = 85.0
    max_backup_hours: float = 26.0
    max_scheduler_age: float = 300.0
    max_queue_length: int = 2000
    max_queue_age: float = 300.0
    max_queue_memory_percent: float = 70.0
    auto_recover: bool = True
    probe_timeout: float = 30.0
    throttle: float = 3600.0
    log_file: str = "/var/log/glitchtip-monitor.log"
    alert_command: tuple[str, ...] = ()
    cutover_command: tuple[str, ...] = ()
    loopback_command: tuple[str, ...] = ()

    @staticmethod
    def read(path: Path) -> MonitorConfig:
        """The file at ``path``; defaults when there is none. Raises OpsError for an unknown key."""
        data = read_object(path) or {}
        unknown = sorted(set(data) - {each.name for each in fields(MonitorConfig)})
        if unknown:
            raise OpsError(f"{path} has unknown keys: {', '.join(unknown)}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        return MonitorConfig(**dict[str, Any](values))


# --- checks -----------------------------------------------------------------------------------------------


def check_api(settings: Settings) -> Check:
    """The settings document, which needs the database."""
    with Client(settings.url, retries=1) as client:
        version = client.version()
    return Check("api", True, f"GlitchTip {version or '(version not told)'} answers from its database")


def check_ingest(probe: Probe) -> Check:
    """A test event read back: web, queue, worker and database."""
    if probe.captured:
        return Check("ingest", True, f"a test event was read back after {probe.seconds:.1f} s")
    return Check("ingest", False, f"a test event was not read back: {probe.error}")


def check_containers(stack: Stack, services: Sequence[str]) -> Check:
    """Every named service has a container that runs and is healthy."""
    containers = stack.containers()
    seen = {container.service: container for container in containers}
    services = stack.services(services, containers)
    troubles: list[str] = []
    for service in services:
        container = seen.get(service)
        if container is None:
            troubles.append(f"{service} is absent")
        elif not container.well:
            oom = ", killed for lack of memory" if container.oom_killed else ""
            troubles.append(f"{service} is {container.state}/{container.health or 'no check'}{oom}")
    if troubles:
        return Check("containers", False, "; ".join(troubles))
    return Check("containers", True, f"{len(services)} containers run and are healthy")


def check_memory(config: MonitorConfig) -> Check:
    """Memory of the host: meminfo or the cgroup limit, the tighter."""
    memory = read_memory()
    text = f"memory is at {memory.percent} % of {memory.total // 2**20} MiB ({memory.source})"
    return Check("memory", memory.percent < config.max_memory_percent, text)


def check_disk(paths: Sequence[Path], config: MonitorConfig) -> Check:
    """The fullest of the file systems that hold ``paths``."""
    fullest = max((read_disk(path) for path in paths), key=lambda disk: disk.percent)
    text = f"the file system of {fullest.path} is {fullest.percent} % full, {fullest.free // 2**20} MiB free"
    return Check("disk", fullest.percent < config.max_disk_percent, text)


def check_pm2(config: MonitorConfig) -> Check:
    """Every named PM2 service is online, or is a job between two runs."""
    processes = read_pm2(config.pm2_user, config.pm2_home, config.pm2_binary, config.pm2_node)
    found = {process.name: process for process in processes}
    troubles = [
        f"{name} is {found[name].status if name in found else 'absent'}"
        for name in config.pm2_services
        if name not in found or not found[name].well
    ]
    if troubles:
        return Check("pm2", False, "; ".join(troubles))
    return Check("pm2", True, f"{len(config.pm2_services)} PM2 services are online")


def check_drift(command: Sequence[str]) -> Check:
    """No settings file and no running process of the product names another tracker than the one in effect."""
    drift = read_drift(command)
    return Check("drift", not drift.problems, drift.summary)


def check_loopback(command: Sequence[str]) -> Check:
    """Whether each rule that keeps other hosts from ports on 127.0.0.1 is set, as role docker's program says it."""
    done = run(command, timeout=60)
    if done.code == 0:
        return Check("loopback", True, "the rules that keep other hosts from 127.0.0.1 are set")
    return Check("loopback", False, f"other hosts may reach ports on 127.0.0.1: {done.reason}")


def check_backup(directory: Path, now: datetime, config: MonitorConfig, stack_id: str = "") -> Check:
    """The newest backup of the stack ``stack_id`` whose restore was proven is young enough."""
    verified = verified_of_stack(list_backups(directory), stack_id)
    if not verified:
        return Check("backup", False, f"there is no verified backup in {directory}")
    age = (now - verified[-1].taken_at) / timedelta(hours=1)
    text = f"the newest verified backup {verified[-1].name} is {age:.1f} h old"
    if age < -1:
        return Check("backup", False, f"backup {verified[-1].name} lies in the future: the clock is wrong")
    return Check("backup", age < config.max_backup_hours, text)


def all_checks(
    settings: Settings, config: MonitorConfig, now: Callable[[], datetime], *, quick: bool = False, act: bool = False
) -> list[Check]:
    """Every check, each on its own; a check that cannot be made counts as failed.

    ``quick``: only those of the queue, for a timer that runs every two minutes. ``act``: keep what the checks must
    remember, and bring back what a killed worker left (``auto_recover``).
    """
    if not config.stack:
        return [] if quick else product_checks(config)
    stack = Stack(config.compose_project)
    pipeline = Pipeline(settings, stack, config, now, act=act)
    if quick:
        return pipeline.checks()
    backup_dir, compose_dir = Path(settings.backup_dir), Path(settings.compose_dir)
    disks = [Path("/"), backup_dir, compose_dir, Path("/var/lib/docker")]

    def ingest() -> Check:
        return check_ingest(send_probe(settings, "monitor", timeout=config.probe_timeout))

    def scheduler() -> Check:
        marks = read_scheduler_marks(stack, config.services)
        return check_scheduler(marks, now(), config.max_scheduler_age, is_6=is_line_6(settings))

    checks = [
        guarded("api", lambda: check_api(settings)),
        *pipeline.checks(),
        guarded("ingest", ingest),
        guarded("containers", lambda: check_containers(stack, config.services)),
        guarded("memory", lambda: check_memory(config)),
        guarded("disk", lambda: check_disk(disks, config)),
        guarded("backup", lambda: check_backup(backup_dir, now(), config, settings.stack_id)),
        guarded("scheduler", scheduler),
    ]
    # Role docker installs it where the engine needs the rules (before Docker 28).
    if config.loopback_command and Path(config.loopback_command[0]).exists():
        checks.append(guarded("loopback", lambda: check_loopback(config.loopback_command)))
    try:
        checks += check_soaks(settings, now())
    except OpsError as error:
        checks.append(Check("soak", False, str(error)))
    return checks + product_checks(config)


def product_checks(config: MonitorConfig) -> list[Check]:
    """The checks of the product on this host. Raises OpsError where nothing at all would be checked."""
    checks: list[Check] = []
    if config.pm2_services:
        checks.append(guarded("pm2", lambda: check_pm2(config)))
    if config.cutover_command:
        checks.append(guarded("drift", lambda: check_drift(config.cutover_command)))
    if not checks and not config.stack:
        raise OpsError(
            "there is nothing to check: GlitchTip does not run on this host, and monitor.json names neither PM2 services nor "
            "the cutover's program (monitoring_pm2_services, monitoring_cutover_program)"
        )
    return checks


# --- alerts -----------------------------------------------------------------------------------------------


def message_of(decision: Decision[Check], host: str, now: datetime) -> dict[str, Any]:
    """The alert as JSON: ``{"text" (for people), "host", "at", "firing": [...], "recovered": [...]}``."""
    lines = [f"GlitchTip on {host}"]
    lines += [f"TROUBLE {check.name}: {check.detail}" for check in decision.firing]
    lines += [f"RECOVERED {check.name}: {check.detail}" for check in decision.recovered]
    return {
        "text": "\n".join(lines),
        "host": host,
        "at": now.isoformat(timespec="seconds"),
        "firing": [{"check": check.name, "detail": check.detail} for check in decision.firing],
        "recovered": [{"check": check.name, "detail": check.detail} for check in decision.recovered],
    }


@dataclass(frozen=True)
class Hooks:
    """Where alerts go: a webhook (its URL is a secret) and a command (the JSON on its standard input)."""

    webhook_url: str | None
    command: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Hooks(webhook={'set' if self.webhook_url else 'unset'}, command={self.command!r})"

    @property
    def configured(self) -> bool:
        """Whether there is anywhere to send an alert."""
        return bool(self.webhook_url or self.command)

    @property
    def fingerprint(self) -> str:
        """Changes when the hooks change; tells nothing about the URL."""
        return hashlib.sha256(json.dumps([self.webhook_url, list(self.command)]).encode()).hexdigest()[:16]

    def deliver(self, message: Mapping[str, Any]) -> None:
        """Give ``message`` to every hook. Raises OpsError when one did not take it, after trying all."""
        failures: list[str] = []
        if self.webhook_url:
            url, deadline = self.webhook_url, time.monotonic() + _HOOK_TIMEOUT
            try:
                try_twice(
                    lambda left: post_document(url, message, left),
                    deadline,
                    monotonic=time.monotonic,
                    sleep=time.sleep,
                )
            except NotSentError as error:
                failures.append(f"the alert webhook {error}")
        if self.command:
            try:
                told = json.dumps(printable_document(message)) + "\n"
                done = run(list(self.command), timeout=_HOOK_TIMEOUT, stdin=told)
                if done.code != 0:
                    failures.append(f"the alert command ended with exit code {done.code}")
            except OpsError as error:
                failures.append(f"the alert command failed: {error}")
        if failures:
            raise OpsError("; ".join(failures))


def read_hooks(config: MonitorConfig, webhook_file: Path) -> Hooks:
    """The hooks as configured; the URL comes from its own file that only the tools' users may read."""
    try:
        url = webhook_file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        url = ""
    except OSError as error:
        raise OpsError(f"{webhook_file} cannot be read: {error.strerror}") from None
    return Hooks(url or None, config.alert_command)


def watch(
    checks: Sequence[Check],
    hooks: Hooks,
    state_file: Path,
    *,
    now: datetime,
    throttle: float,
    host: str,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Tell about ``checks`` what is due and keep the state.

    Returns ``{"at", "ok", "checks", "alerted", "recovered", "alert_error"}``.
    State is kept as told only when every hook took the message; ``dry_run`` sends and keeps nothing.
    """
    state = (read_object(state_file) or {}).get("checks", {})
    decision = decide(state, checks, now, throttle)
    error: str | None = None
    if not dry_run:
        if (decision.firing or decision.recovered) and hooks.configured:
            try:
                hooks.deliver(message_of(decision, host, now))
            except OpsError as failure:
                error = str(failure)
        write_object(state_file, {"checks": decision.told if error is None else decision.untold})
    return {
        "at": now.isoformat(timespec="seconds"),
        "ok": all(check.ok for check in checks),
        "checks": [asdict(check) for check in checks],
        "alerted": [check.name for check in decision.firing],
        "recovered": [check.name for check in decision.recovered],
        "alert_error": error,
    }


def canary(
    hooks: Hooks, proof_file: Path, *, now: datetime, host: str, force: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Send a canary through the hooks once per configuration; ``{"changed", "configured", "proven_at"}``.

    Raises OpsError when there is a hook and it did not take the canary.
    """
    proof = read_object(proof_file) or {}
    if not hooks.configured:
        return {"changed": False, "configured": False, "proven_at": None}
    if proof.get("hooks") == hooks.fingerprint and not force:
        return {"changed": False, "configured": True, "proven_at": proof.get("proven_at")}
    stamp = now.isoformat(timespec="seconds")
    if not dry_run:
        text = f"GlitchTip on {host}\nTEST only: alerts of this host arrive here"
        hooks.deliver(
            {"text": text, "host": host, "at": stamp, "firing": [], "recovered": [], "canary": True}
        )
        write_object(proof_file, {"hooks": hooks.fingerprint, "proven_at": stamp})
    return {"changed": True, "configured": True, "proven_at": stamp}


def _take_turn(held: ExitStack, state_dir: Path, *, quick: bool, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Wait for another check that runs; False for a quick one, which that other check makes superfluous.

    Raises OpsError when the other one has not ended after _TURN seconds.
    """
    for left in range(_TURN, -1, -1):
        try:
            held.enter_context(lock(state_dir / ".monitor.lock", "a health check"))
            return True
        except OpsError:
            if quick:
                return False
            if not left:
                raise
        sleep(1)
    return False


def _command(arguments: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any]]:
    config = MonitorConfig.read(settings_directory() / "monitor.json")
    hooks = read_hooks(config, settings_directory() / "alert_webhook_url")
    state_dir, host = Path(settings.state_dir), socket.gethostname()
    if arguments.action == "canary":
        proof = state_dir / "alert-canary.json"
        return 0, canary(
            hooks, proof, now=utc_now(), host=host, force=arguments.force, dry_run=arguments.dry_run
        )
    # A look without alerts waits for nobody; two real runs at once would tell everything twice.
    with ExitStack() as held:
        if not arguments.dry_run and not _take_turn(held, state_dir, quick=arguments.quick):
            return 0, {"at": utc_now().isoformat(timespec="seconds"), "ok": True, "checks": [], "alert_error": None}
        result = watch(
            all_checks(settings, config, utc_now, quick=arguments.quick, act=not arguments.dry_run),
            hooks,
            state_dir / "monitor.json",
            now=utc_now(),
            throttle=config.throttle,
            host=host,
            dry_run=arguments.dry_run,
        )
        if not arguments.dry_run:
            append_line(Path(config.log_file), json.dumps(printable_document(result), sort_keys=True), mode=0o640)
    if result["alert_error"]:
        return 1, result
    return (0 if result["ok"] else BAD_ANSWER), result


def describe(result: Mapping[str, Any]) -> str:
    """The result of a monitor command for people, a line a check."""
    if "checks" not in result:
        if not result["configured"]:
            return "no alert hook is set"
        return f"alert hooks {'proven now' if result['changed'] else 'proven at ' + str(result['proven_at'])}"
    lines = [
        f"{'ok     ' if check['ok'] else 'TROUBLE'} {check['name']}: {check['detail']}"
        for check in result["checks"]
    ]
    if result["alert_error"]:
        lines.append(f"the alert could not be delivered: {result['alert_error']}")
    return "\n".join(lines)


def register(subparsers: Any) -> None:
    """Add ``monitor`` with its actions."""
    parser = subparsers.add_parser("monitor", help="is GlitchTip healthy; tells the alert hooks when not")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="all checks now; exit code 3 when something is wrong")
    check.add_argument("--dry-run", action="store_true", help="tell nobody and keep no record")
    check.add_argument("--quick", action="store_true", help="only the checks of the queue and of memory kills")
    proof = actions.add_parser("canary", help="send a test alert through the hooks, once per configuration")
    proof.add_argument("--force", action="store_true", help="also when it was proven before")
    proof.add_argument("--dry-run", action="store_true", help="only say whether one would be sent")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> Outcome:
    code, result = _command(arguments, load_settings())
    return Outcome(result, describe(result).splitlines(), code)

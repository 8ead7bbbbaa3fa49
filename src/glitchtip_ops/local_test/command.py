"""The command ``glitchtip-ops local-test``."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from glitchtip_api.version import ServerVersion
from glitchtip_core.files import write_bytes, write_object
from glitchtip_core.pm2 import Access, find_node

from ..cli import BAD_ANSWER, Outcome
from ..docker_stack import Stack
from ..process import OpsError
from ..settings import load_settings
from .image_facts import facts_for
from .report import describe, markdown, proof
from .running import LocalTest, Uptime
from .sending import SDKS, NodeSender, PythonSender, Sender
from .target import Limits, Target
from .uptime import UptimeLimits

BURSTS = (100, 1000)
LARGEST_BURST = 10_000
#: Where a checkout of the project has the senders' scripts.
SCRIPTS = Path(__file__).resolve().parents[3] / "roles/local_test/files"
_OWN = ("url", "token_file", "dsn_file", "organization", "project")


def _number(low: float, high: float) -> Callable[[str], float]:
    """A number within limits. Otherwise argparse says so, exit code 2."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # nan is never between
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number within limits. Otherwise argparse says so, exit code 2."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def register(subparsers: Any) -> None:
    """Add the command ``local-test``."""
    parser = subparsers.add_parser("local-test", help="read back what real SDKs send to a GlitchTip")
    where = parser.add_argument_group("the server (default: the settings of this host)")
    where.add_argument("--url", help="address of its API")
    where.add_argument(
        "--token-file", type=Path, help="API token: event:read project:read, see docs/local_test.md"
    )
    where.add_argument("--dsn-file", type=Path, help="DSN of the project that takes the test errors")
    where.add_argument("--organization", help="slug")
    where.add_argument("--project", help="slug")
    where.add_argument("--ca-path", type=Path, help="PEM file of the authorities to trust")
    where.add_argument(
        "--compose-project", default="glitchtip", help="whose memory and containers are watched"
    )
    where.add_argument(
        "--no-stack", action="store_true", help="the server runs elsewhere: watch no containers"
    )
    how = parser.add_argument_group("the SDKs")
    how.add_argument("--sdk", action="append", choices=SDKS, help="may be repeated; default: both")
    how.add_argument("--app-dir", type=Path, help="the product, with @sentry/node in its node_modules")
    how.add_argument("--script", type=Path, default=SCRIPTS / "scenarios.cjs", help="scenarios.cjs")
    how.add_argument("--python-script", type=Path, default=SCRIPTS / "scenarios.py", help="scenarios.py")
    how.add_argument("--node", default="node", help="Node.js; empty: the one of --pm2")
    how.add_argument("--pm2", default="/usr/local/bin/pm2", metavar="FILE", help="by which an empty --node is found")
    how.add_argument("--python", default=sys.executable, help="a Python with sentry-sdk")
    how.add_argument("--user", default=None, help="user that runs the SDKs; default: yourself")
    what = parser.add_argument_group("what is asked")
    what.add_argument(
        "--burst",
        type=_whole(1, LARGEST_BURST),
        action="append",
        help=f"number of events; may be repeated; default: {' and '.join(map(str, BURSTS))}",
    )
    what.add_argument("--max-latency", type=_number(0.1, 3600), default=Limits.latency, help="seconds, p95")
    what.add_argument("--max-stack-mib", type=_number(1, 1e6), default=Limits.stack_mib)
    what.add_argument(
        "--patience", type=_number(1, 3600), default=Limits.patience, help="seconds until on time"
    )
    what.add_argument(
        "--grace", type=_number(0, 3600), default=Limits.grace, help="seconds more: late, not lost"
    )
    monitor = parser.add_argument_group("the uptime monitor")
    monitor.add_argument("--no-uptime", action="store_true", help="leave the monitor out")
    monitor.add_argument("--bind", default="", help="address of this machine that the server reaches")
    monitor.add_argument("--port", type=_whole(0, 65535), default=0, help="port there; default: any")
    monitor.add_argument("--reach", default="", help="name of that address on the server's side (NAT)")
    monitor.add_argument(
        "--uptime-interval", type=_whole(1, 32767), default=UptimeLimits.interval, help="seconds"
    )
    monitor.add_argument(
        "--uptime-wait", type=_number(5, 3600), default=UptimeLimits.wait, help="seconds, each step"
    )
    out = parser.add_argument_group("the report")
    out.add_argument("--image", default="", help="the image that is tested; part of the report")
    out.add_argument("--image-digest", default="", help="its digest or id; part of the report")
    out.add_argument("--result", type=Path, help="file that keeps the report (JSON)")
    out.add_argument("--markdown", type=Path, help="file that keeps it for people")
    parser.set_defaults(handler=_handle)


def target_of(options: argparse.Namespace) -> Target:
    """What is tested: what the options say, all of them, else the settings of this host. Raises OpsError."""
    given = {name: getattr(options, name) for name in _OWN}
    ca_path = None if options.ca_path is None else str(options.ca_path)
    if ca_path is not None and not options.ca_path.is_file():
        raise OpsError(f"{ca_path} is not a file: give the PEM file of the authorities to trust (--ca-path).")
    if not any(given.values()):
        settings = load_settings()
        return Target(
            settings.url, settings.organization, settings.project, settings.token, settings.dsn, ca_path
        )
    missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if not value]
    if missing:
        raise OpsError(f"For a server of your own give {', '.join(missing)} too (see docs/local_test.md).")
    return Target(
        given["url"],
        given["organization"],
        given["project"],
        _secret(given["token_file"], "API token"),
        _secret(given["dsn_file"], "DSN"),
        ca_path,
    )


def _secret(path: Path, what: str) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise OpsError(f"{path} cannot be read ({reason}): it has to hold the {what}.") from None
    if not text:
        raise OpsError(f"{path} is empty: it has to hold the {what}.")
    return text


def senders_of(options: argparse.Namespace, target: Target) -> list[Sender]:
    """The SDKs that are asked for, Node.js first. Raises OpsError when one needs what was not given."""
    wanted = options.sdk or list(SDKS)
    senders: list[Sender] = []
    if "node" in wanted:
        if options.app_dir is None:
            raise OpsError(
                "The Node.js SDK is the product's own: give its directory (--app-dir), or test with --sdk python alone."
            )
        senders.append(
            NodeSender(
                options.script, target.dsn, options.user, target.ca_path, options.app_dir, node_of(options)
            )
        )
    if "python" in wanted:
        senders.append(
            PythonSender(options.python_script, target.dsn, options.user, target.ca_path, options.python)
        )
    return senders


def node_of(options: argparse.Namespace) -> str:
    """The Node.js that sends: the given one, else the one of the product's PM2. Raises OpsError when there is none."""
    if options.node:
        return str(options.node)
    return str(find_node(Access.of(options.user or getpass.getuser(), "", options.pm2, "")))


def scripts_digest(options: argparse.Namespace) -> str:
    """What was sent, as one checksum: a report of other scenarios proves nothing. Raises OpsError."""
    digest = hashlib.sha256()
    for path in (options.script, options.python_script):
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise OpsError(
                f"{path} cannot be read: {error.strerror}; roles/local_test/files has it."
            ) from None
    return digest.hexdigest()


def _handle(options: argparse.Namespace) -> Outcome:
    target = target_of(options)
    checksum = scripts_digest(options)
    bursts = options.burst or list(BURSTS)
    senders = senders_of(options, target)
    limits = UptimeLimits(options.uptime_interval, options.uptime_wait)
    uptime = None if options.no_uptime else Uptime(options.bind, options.reach, options.port, limits)
    test = LocalTest(
        target,
        senders,
        stack=None if options.no_stack else Stack(options.compose_project),
        uptime=uptime,
        limits=Limits(options.max_latency, options.max_stack_mib, options.patience, options.grace),
    )
    with _terminable():
        report = test.run(bursts)
    version = ServerVersion.parse(str(report["server"]["version"]))
    report |= {
        "image": options.image,
        "image_digest": options.image_digest,
        "walked": version.walked,
        "image_facts": None if options.no_stack else facts_for(version, options.image),
        "scenarios_sha256": checksum,
        "asked": {
            "sdks": sorted(sender.name for sender in senders),
            "bursts": bursts,
            "uptime": uptime is not None,
        },
    }
    report["proof"] = proof(report)
    lines = describe(report)
    report["table"] = lines
    if options.result:
        write_object(options.result, report)
    if options.markdown:
        write_bytes(options.markdown, markdown(report).encode())
    return Outcome(report, lines, 0 if report["passed"] else BAD_ANSWER)


class _terminable:  # noqa: N801 - read as a statement
    """Within the block SIGTERM ends the program as an exception does: what was created is removed."""

    def __enter__(self) -> None:
        def end(number: int, _: FrameType | None) -> None:
            sys.exit(128 + number)

        self._before = signal.signal(signal.SIGTERM, end)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

"""``glitchtip-ops mirror``: what the mirror has sent to both trackers, counted from its own log.

The mirror's nginx (``ai-admin-cutover mirror-config``) writes one JSON line a leg into ``mirror.jsonl``: ``at``
(epoch seconds when the leg ended), ``leg`` (``sentry``, ``glitchtip``, or ``sentry_only`` for what has no copy),
``status`` (what the SDK got), ``upstream_status`` and ``upstream_time`` (what the tracker answered, after how
many seconds; several, comma-separated, where nginx tried several addresses), and ``id``, the same in both legs.
Rotated files lie beside it (``mirror.jsonl.1``, ``mirror.jsonl.2.gz``).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from glitchtip_core.files import read_object
from glitchtip_core.foreign_files import info_of, names_in, open_directory, open_regular
from glitchtip_core.foreign_paths import ForeignError, walk
from glitchtip_core.http import short_text

from .cli import BAD_ANSWER, Outcome
from .process import OpsError
from .settings import settings_directory

LOG_NAME = "mirror.jsonl"
HEALTH = "/_mirror/health"
#: Two workers write for a moment while nginx reloads: lines are in order only up to the longest request.
_DISORDER = 120.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


# ------------------------------------------------------------------------------------------ reading the log


def _files(directory: Path) -> list[Path]:
    """The log and what was rotated away, oldest first. Raises OpsError when it cannot be looked at."""
    try:
        with open_directory(directory) as opened:
            names = names_in(opened)
        wanted = [name for name in names if name == LOG_NAME or re.fullmatch(rf"{re.escape(LOG_NAME)}[.-].+", name)]
        found = [(info.st_mtime, directory / name) for name in wanted if (info := info_of(directory / name))]
        return [path for _, path in sorted(found)]
    except ForeignError as error:
        raise OpsError(str(error)) from None
    except FileNotFoundError as error:
        raise OpsError(
            f"there is no log of the mirror in {directory}; is the mirror installed (phase 3 with mode mirror)?"
        ) from error
    except PermissionError:
        raise OpsError(f"{directory} cannot be read; run this as root or as glitchtip-ops") from None


def _parse(line: bytes) -> dict[str, Any] | None:
    """One line; None when it is torn or not one of ours."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("at"), int | float):
        return None
    return record if isinstance(record.get("leg"), str) else None


def _seek(stream: IO[bytes], since: float) -> None:
    """Go to a line start before which every line is older than ``since``; found by halving."""
    low, high = 0, os.fstat(stream.fileno()).st_size
    while high - low > 65536:
        middle = (low + high) // 2
        stream.seek(middle)
        stream.readline()
        record = None
        while record is None and (line := stream.readline()):
            record = _parse(line)
        if record is not None and record["at"] < since - _DISORDER:
            low = middle
        else:
            high = middle
    stream.seek(low)
    if low:
        stream.readline()


def _open(path: Path) -> IO[bytes]:
    """The log, which nginx's user owns. Raises OSError, ForeignError when it is no regular file of that user."""
    with walk(path) as found:
        return open(open_regular(found)[0], "rb")


def _lines(path: Path, since: float) -> Iterator[bytes]:
    """Lines of a plain or packed file; a packed one that is cut gives what it holds."""
    with _open(path) as stream:
        if path.suffix == ".gz":
            with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile), gzip.open(stream) as packed:
                yield from packed
        else:
            _seek(stream, since)
            yield from stream


def read_legs(since: datetime, until: datetime, log_dir: Path) -> Iterator[dict[str, Any]]:
    """Every leg that ended in [since, until), in the order of the files. Raises OpsError when unreadable.

    A file being rotated while it is read may be met under both of its names; it is read once.
    """
    first, last, log_dir = since.timestamp(), until.timestamp(), log_dir.absolute()
    seen: set[tuple[int, int]] = set()
    packed = {path.name.removesuffix(".gz") for path in _files(log_dir) if path.suffix == ".gz"}
    for path in _files(log_dir):
        try:
            status = info_of(path)
            if status is None or status.st_mtime < first or (status.st_dev, status.st_ino) in seen:
                continue
            if path.name in packed and path.name != LOG_NAME:
                continue  # packed a moment ago: its packed form is read
            seen.add((status.st_dev, status.st_ino))
            for line in _lines(path, first):
                record = _parse(line)
                if record is not None and first <= record["at"] < last:
                    yield record
        except FileNotFoundError:
            continue
        except PermissionError:
            raise OpsError(f"{path} cannot be read; run this as root or as glitchtip-ops") from None
        except ForeignError as error:
            raise OpsError(str(error)) from None


def _seconds(record: dict[str, Any]) -> float | None:
    """How long the tracker took; None where it was not asked or never answered."""
    parts = re.findall(r"[0-9.]+", str(record.get("upstream_time", "")))
    return sum(float(part) for part in parts) if parts else None


def _accepted(record: dict[str, Any]) -> bool:
    """Whether the tracker itself answered 2xx (the last address that was tried)."""
    answers = re.findall(r"[0-9]+", str(record.get("upstream_status", "")))
    return bool(answers) and answers[-1].startswith("2")


def quantile(values: list[float], part: float) -> float | None:
    """The smallest value that ``part`` (0 to 1) of the values do not exceed; None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 6)


def count(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Work out the counts of legs; the shape is that of ``read_counts``."""
    legs: dict[str, dict[str, int]] = {
        "sentry": {"sent": 0, "ok": 0, "failed": 0},
        "glitchtip": {"sent": 0, "ok": 0, "failed": 0, "skipped": 0},
    }
    times: dict[str, list[float]] = {"sentry": [], "glitchtip": []}
    for record in records:
        name = record["leg"]
        leg = legs.get(name)
        if leg is None:
            continue
        if name == "glitchtip" and record.get("status") == "204" and not record.get("upstream_status"):
            leg["skipped"] += 1
            continue
        leg["sent"] += 1
        leg["ok" if _accepted(record) else "failed"] += 1
        seconds = _seconds(record)
        if seconds is not None:
            times[name].append(seconds)
    return {
        **legs,
        "seconds": {
            f"{name}_{label}": quantile(values, part)
            for name, values in times.items()
            for label, part in (("p50", 0.5), ("p95", 0.95))
        },
    }


def mirror_settings() -> dict[str, Any] | None:
    """``mirror.json`` of role parallel_run: ``{"listen", "log_dir"}``; None where there is no mirror."""
    path = settings_directory() / "mirror.json"
    data = read_object(path)
    if data is None:
        return None
    if not isinstance(data.get("listen"), str) or not isinstance(data.get("log_dir"), str):
        raise OpsError(f"{path} lacks listen or log_dir; run playbooks/phase3_parallel_run.yml again")
    return data


def read_counts(since: datetime, until: datetime, log_dir: Path | None = None) -> dict[str, Any] | None:
    """What both legs did in [since, until); None where there is no mirror on this host.

    Returns ``{"sentry": {"sent", "ok", "failed"}, "glitchtip": {"sent", "ok", "failed", "skipped"}, "seconds":
    {"sentry_p50", "sentry_p95", "glitchtip_p50", "glitchtip_p95"}}``. ``ok`` is what the tracker answered with
    2xx; ``failed`` is all else, also a copy that was not sent because too many were under way; a copy that is
    ``skipped`` (a key of nobody) is not ``sent``. A copy counts as failed when its answer did not come in time:
    the tracker may have it none the less, so ``failed`` is the upper bound of what is lost. Seconds are the
    trackers' own; None when there are none. A leg counts when it has ended, at most some seconds after it came.
    Raises OpsError when the log is there and cannot be read.
    """
    if log_dir is None:
        settings = mirror_settings()
        if settings is None:
            return None
        log_dir = Path(settings["log_dir"])
    return count(read_legs(since, until, log_dir))


# ---------------------------------------------------------------------------------------------- the command


def answers(listen: str) -> str:
    """The revision of the configuration that nginx runs; empty when nothing answers there."""
    return short_text(listen + HEALTH, timeout=3)


def _at(text: str, now: datetime) -> datetime:
    """A moment: ISO 8601, or how long ago (``90s``, ``15m``, ``48h``, ``2d``). Raises OpsError."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    try:
        if match:
            return now - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise OpsError(f"{text!r} is no time; write 15m, 48h or 2026-11-21T08:00:00+00:00") from None
    return moment if moment.tzinfo else moment.astimezone()


def _human(found: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("sentry", "glitchtip"):
        leg, seconds = found[name], found["seconds"]
        told = ", ".join(f"{value} {key}" for key, value in leg.items())
        half, most = seconds[f"{name}_p50"], seconds[f"{name}_p95"]
        took = f"; p50 {half * 1000:.0f} ms, p95 {most * 1000:.0f} ms" if half is not None else ""
        lines.append(f"{name}: {told}{took}")
    return lines


def _counts(options: argparse.Namespace) -> Outcome:
    now = datetime.fromtimestamp(time.time(), UTC)
    since, until = _at(options.since, now), _at(options.until, now) if options.until else now
    if since >= until:
        raise OpsError("the window ends before it begins; --since must be earlier than --until")
    found = read_counts(since, until, options.log_dir)
    if found is None:
        raise OpsError("there is no mirror on this host (phase 3 with parallel_run_mode: mirror sets it up)")
    window = {"since": since.isoformat(), "until": until.isoformat()}
    return Outcome({**window, **found}, [f"{since.isoformat()} to {until.isoformat()}", *_human(found)])


def _status(_options: argparse.Namespace) -> Outcome:
    settings = mirror_settings()
    if settings is None:
        return Outcome({"installed": False}, ["there is no mirror on this host"])
    revision = answers(settings["listen"])
    now = datetime.fromtimestamp(time.time(), UTC)
    found = read_counts(now - timedelta(hours=1), now, Path(settings["log_dir"]))
    document = {"installed": True, "answers": bool(revision), "revision": revision, **settings}
    state = (
        f"answers on {settings['listen']} (revision {revision})"
        if revision
        else "does not answer; services that"
    )
    if not revision:
        state += f" report to {settings['listen']} reach nobody: systemctl restart glitchtip-mirror"
    lines = [f"the mirror {state}", "last hour:", *_human(found or count([]))]
    return Outcome({**document, "last_hour": found}, lines, 0 if revision else BAD_ANSWER)


def register(subparsers: Any) -> None:
    """Add ``mirror counts`` and ``mirror status``."""
    parser = subparsers.add_parser("mirror", help="what the mirror sent to both trackers")
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    counts = commands.add_parser("counts", help="both legs of a window")
    counts.add_argument(
        "--since", default="24h", help="when it begins: 15m, 48h ago or ISO 8601 (default 24h)"
    )
    counts.add_argument("--until", help="when it ends (default now)")
    counts.add_argument("--log-dir", type=Path, help="another directory than the mirror's own")
    counts.set_defaults(handler=_counts)
    status = commands.add_parser(
        "status", help="whether it answers, and the last hour (exit code 3 when not)"
    )
    status.set_defaults(handler=_status)

"""The command ``glitchtip-ops backup``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from ..cli import Outcome
from ..process import OpsError
from ..settings import Settings, load_settings, settings_directory
from .config import BackupConfig
from .making import Backups, ensure, take

_LONGEST_IDENTITY = 2**16


def _command(arguments: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any]]:
    backups = Backups(settings, BackupConfig.read(settings_directory() / "backup.json"))
    match arguments.action:
        case "create":
            return 0, {"changed": True, **backups.create().to_json()}
        case "verify":
            wanted = backups.find(arguments.name) if arguments.name else backups.newest()
            return 0, backups.verify(wanted, _identity() if arguments.identity_stdin else "")
        case "encrypt":
            wanted = backups.find(arguments.name) if arguments.name else backups.newest()
            return 0, backups.encrypt(wanted)
        case "prune":
            return 0, backups.prune(dry_run=arguments.dry_run)
        case "ensure":
            return 0, ensure(backups, dry_run=arguments.dry_run)
        case "run":
            return 0, take(backups)
        case _:
            return 0, {"backups": [backup.to_json() for backup in backups.present()]}


def _identity() -> str:
    """The private key on standard input; it is kept in memory only. Raises OpsError when there is none."""
    text = sys.stdin.read(_LONGEST_IDENTITY)
    if not text.strip():
        raise OpsError("--identity-stdin: standard input is empty; pipe the private key into this command")
    return text


def describe(result: Mapping[str, Any]) -> str:
    """The result of a backup command for people, some lines."""
    if "backups" in result:
        lines = [
            f"{backup['name']}  {backup['size'] / 2**20:8.1f} MiB  proven {backup['verified_at'] or 'never'}"
            + ("  encrypted" if backup["encrypted"] else "")
            for backup in result["backups"]
        ]
        return "\n".join(lines) or "no backups"
    lines = []
    name = result.get("backup") or result.get("name")
    if name:
        verified = result.get("verified_at")
        proof = f"restored and compared: {result.get('tables')} tables, {result.get('rows')} rows"
        lines.append(f"{name}: {proof if verified else 'not verified yet'}")
    elif "changed" in result:
        lines.append("a backup would be taken and proven" if result["changed"] else "nothing to do")
    if "note" in result:
        lines.append(str(result["note"]))
        lines += [f"removed {removed}" for removed in result["removed"]]
    return "\n".join(lines)


def register(subparsers: Any) -> None:
    """Add ``backup`` with its actions."""
    parser = subparsers.add_parser("backup", help="backups of GlitchTip's database, proven by a restore")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("run", help="create, verify, then prune: what the timer does")
    first = actions.add_parser("ensure", help="have a verified backup of this migration")
    first.add_argument("--dry-run", action="store_true", help="only say whether one would be taken")
    actions.add_parser("create", help="take a backup, without the proof")
    proof = actions.add_parser("verify", help="restore a backup into a scratch database and compare")
    proof.add_argument("name", nargs="?", help="name of the backup (default: the newest)")
    proof.add_argument(
        "--identity-stdin",
        action="store_true",
        help="read the private key of an encrypted backup from standard input",
    )
    sealed = actions.add_parser(
        "encrypt", help="prove a plain backup by a restore, then encrypt it to age_recipients"
    )
    sealed.add_argument("name", nargs="?", help="name of the backup (default: the newest)")
    prune = actions.add_parser("prune", help="remove what the retention allows")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    actions.add_parser("list", help="all backups")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> Outcome:
    code, result = _command(arguments, load_settings())
    return Outcome(result, describe(result).splitlines(), code)

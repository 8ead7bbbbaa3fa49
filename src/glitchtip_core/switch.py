"""The journal of the switch: what it holds beside the records of every transaction, for the switch and for who asks where it stands."""

from __future__ import annotations

from pathlib import Path

from .transaction.journal import read_records
from .transaction.state import Kinds, State, fold

#: Its name in the directory of a migration.
JOURNAL = "journal.jsonl"
#: What can stand beside what stood before the migration.
GLITCHTIP, MIRROR = "glitchtip", "mirror"
KINDS = Kinds(
    remarks=frozenset(
        {"env_recorded_anew", "gate_overridden", "proved", "heard", "unproven_accepted", "verified"}
        | {"watch_begin", "watch_note", "watch_alarm", "watch_passed", "watch_stopped", "watch_drift"}
    ),
    saved="pm2_save",
    part="service",
    fingerprint="new_dsn_sha256",
    target=GLITCHTIP,
    otherwise="glitchtip-rollback restores the original DSN without it, too",
)


def read_switch(directory: Path) -> State:
    """Where the migration in ``directory`` stands; one without a journal stands where it stood before.

    Raises CoreError; its cause is an OSError where the journal cannot be read.
    """
    return fold(read_records(directory / JOURNAL)[0], KINDS)

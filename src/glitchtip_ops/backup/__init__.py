"""``glitchtip-ops backup``: dumps of GlitchTip's database that are proven by a restore.

A backup is a custom-format dump taken in the same snapshot as a manifest (rows of every table, server
version, images, migrations, hashes of the secrets), with its checksum and copies of the Compose file and
``.env`` beside it. It counts as verified when it was restored into a scratch database and every table had as
many rows as the manifest says; listing an archive proves nothing (a dump cut in half still lists).

Files in the backup directory (all 600, times in UTC)::

    glitchtip-YYYYMMDD-HHMM.dump              pg_dump -Fc
    glitchtip-YYYYMMDD-HHMM.dump.sha256       checksum, as sha256sum writes it
    glitchtip-YYYYMMDD-HHMM.manifest.json
    glitchtip-YYYYMMDD-HHMM.compose.yml       copies; the dump holds tokens in clear text, .env the keys
    glitchtip-YYYYMMDD-HHMM.env
    glitchtip-YYYYMMDD-HHMM.verified.json     written by a successful verification

With recipients (``age_recipients``) a set is proven first and then encrypted; dump and copies exist as
``.dump.age``, ``.compose.yml.age`` and ``.env.age`` only, ``.age.sha256`` has their checksums, and so has the
manifest. The private key is never on this host, except on standard input of ``verify --identity-stdin``.
"""

from __future__ import annotations

from .command import register
from .config import BackupConfig
from .making import Backups, ensure, take
from .proof import compare_tables
from .retention import plan_prune
from .sets import Backup, list_backups, newest_verified_of, verified_of_stack

__all__ = [
    "Backup",
    "BackupConfig",
    "Backups",
    "compare_tables",
    "ensure",
    "list_backups",
    "newest_verified_of",
    "plan_prune",
    "register",
    "take",
    "verified_of_stack",
]

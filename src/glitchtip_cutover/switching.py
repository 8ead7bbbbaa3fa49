"""The transaction of the switch: the shared one with the directory, the journal and the texts of a migration."""

from __future__ import annotations

from glitchtip_core.switch import JOURNAL, KINDS
from glitchtip_core.transaction.transaction import Client, Transaction

from .config import Config
from .host import Host


def transaction_of(config: Config, host: Host) -> Transaction:
    """The one of a configuration. The ports of ``host`` raise nothing but CutoverError (see ``containment``)."""
    client = Client(
        directory=config.state_dir,
        journal=JOURNAL,
        kinds=KINDS,
        about={"migration_id": config.migration_id},
        following="run ai-admin-cutover status, then glitchtip-rollback",
    )
    return Transaction(client, host)

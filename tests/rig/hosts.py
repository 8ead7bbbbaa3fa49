"""The throwaway servers as testinfra sees them."""

from __future__ import annotations

import testinfra
from testinfra.host import Host

from rig import world


def seen(server: world.Server = world.MAIN) -> Host:
    """The server over SSH."""
    return testinfra.get_host(
        f"ssh://root@127.0.0.1:{server.port}",
        ssh_identity_file=str(world.KEY),
        ssh_extra_args="-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
    )

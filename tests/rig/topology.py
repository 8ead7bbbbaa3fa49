"""The world of the second topology: two servers that run the product, and one more that GlitchTip has to itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from rig import demo, sentry, world
from rig.shell import say

#: Small ones: GlitchTip's share of the memory is on the third.
APPLICATIONS = (
    world.Server(f"{world.SERVER}-app1", world.SSH_PORT, memory="900m"),
    world.Server(f"{world.SERVER}-app2", world.SSH_PORT + 1, memory="900m"),
)
TRACKER = world.Server(f"{world.SERVER}-tracker", world.SSH_PORT + 2, image="server")
SERVERS = (*APPLICATIONS, TRACKER)


def up() -> None:
    """The surroundings and three fresh servers; both products report to "Sentry"."""
    demo.prepare_surroundings()
    say("servers: booting two with 0.9 GB for the product, one with 1.9 GB for GlitchTip ...")
    world.make_key()
    with ThreadPoolExecutor() as pool:
        containers = list(pool.map(world.start_server, SERVERS))
    tracker, dsn = sentry.provision()
    # Only GlitchTip's server gets an engine inside, which has to stay under the limits of that server.
    demo.write_inventory(containers[SERVERS.index(TRACKER)], tracker)
    for server in APPLICATIONS:
        world.provision_product(dsn, server)


def down() -> None:
    """Remove these three servers."""
    for server in SERVERS:
        world.remove_server(server)

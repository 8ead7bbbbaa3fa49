"""The three servers, and what the tests ask of them again and again."""

from __future__ import annotations

import json

import pytest
from rig import demo, hosts, topology, world
from rig.trackers import settle, tunnel


@pytest.fixture(scope="session")
def applications():
    """Both servers of the product, as testinfra sees them."""
    return [hosts.seen(server) for server in topology.APPLICATIONS]


@pytest.fixture(scope="session")
def tracker():
    """GlitchTip's server, as testinfra sees it."""
    return hosts.seen(topology.TRACKER)


@pytest.fixture(scope="session")
def sentry():
    """ "Sentry", to read it."""
    return demo.sentry.provision()[0]


@pytest.fixture
def settled(sentry):
    """How the events of both products' ledgers stand in both trackers: {captured, acknowledged, sentry, glitchtip, lost, duplicated}."""

    def _settled() -> dict[str, int]:
        ledgers = [demo.ledger(server) for server in topology.APPLICATIONS]
        assert all(entries.acknowledged for entries in ledgers)
        captured = {event_id for entries in ledgers for event_id in entries.captured}
        acknowledged = {event_id for entries in ledgers for event_id in entries.acknowledged}
        with tunnel(topology.TRACKER) as url:
            return settle(captured, acknowledged, sentry, demo.glitchtip_tracker(url, topology.TRACKER))

    return _settled


@pytest.fixture
def standing():
    """What the switch says on each server of the product: (state, where .env leads)."""

    def _standing() -> list[tuple[str, str]]:
        told = [
            json.loads(world.ssh("ai-admin-cutover status --json", server=server)[1])
            for server in topology.APPLICATIONS
        ]
        return [(status["state"], status["env_dsn_host"]) for status in told]

    return _standing

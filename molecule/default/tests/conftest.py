"""The server of the scenario, and a way to run a playbook that is expected to refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import testinfra
from rig import demo, walk, world


@pytest.fixture(scope="session")
def server():
    """The server over SSH, as testinfra sees it."""
    return testinfra.get_host(
        f"ssh://root@127.0.0.1:{world.SSH_PORT}",
        ssh_identity_file=str(world.KEY),
        ssh_extra_args="-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
    )


@pytest.fixture
def refuses() -> Callable[..., str]:
    """Run a playbook that must end with a failure and leave the server as it was; gives what it printed."""

    def _refuses(playbook: str, *extra: str) -> str:
        before = demo.fingerprint()
        run = walk.attempt(playbook, extra=extra, quiet=True)
        assert run.code != 0, run.output
        assert demo.changed_parts(before, demo.fingerprint()) == ""
        return run.output

    return _refuses


@pytest.fixture
def damaged() -> Callable[..., object]:
    """A context in which something on the server is broken by one command and mended by another."""

    @contextmanager
    def _damaged(damage: str, mend: str) -> Iterator[None]:
        world.ssh(damage)
        try:
            yield
        finally:
            world.ssh(mend)

    return _damaged

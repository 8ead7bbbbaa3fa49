"""The server of the scenario, and a way to run a playbook that is expected to refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from rig import demo, hosts, walk, world


@pytest.fixture(scope="session")
def server():
    """The server over SSH, as testinfra sees it."""
    return hosts.seen()


@pytest.fixture
def refuses() -> Callable[..., str]:
    """Run a playbook that must end with a failure and leave the server as it was; gives what it printed."""

    def _refuses(playbook: str, *extra: str, fast: bool = True) -> str:
        before = demo.fingerprint()
        run = walk.attempt(playbook, extra=extra, quiet=True, fast=fast)
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

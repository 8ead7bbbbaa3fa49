"""A PM2 that answers what a test wants, and the runner of Ansible's modules."""

from __future__ import annotations

import socket

import pytest
from unit.host_modules import run_host_module as run_host_module


@pytest.fixture
def fake_pm2(tmp_path):
    """A client that answers ``jlist`` and notes that it was called; ``home`` is the PM2_HOME."""

    class Fake:
        home = tmp_path / "home"
        binary = tmp_path / "pm2"
        called = tmp_path / "called"
        answer = tmp_path / "answer"

        def answers(self, text):
            self.answer.write_text(text)
            note = f'echo "$* PM2_HOME=$PM2_HOME HOME=$HOME ${{SENTRY_DSN-}}" >> {self.called}'
            self.binary.write_text(f"#!/bin/sh\n{note}\ncat {self.answer}\n")
            self.binary.chmod(0o755)

    fake = Fake()
    fake.home.mkdir()
    fake.answers("[]")
    return fake


@pytest.fixture
def daemon(fake_pm2):
    """A listener on the daemon's socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(fake_pm2.home / "rpc.sock"))
        server.listen()
        yield server

"""Docker has to say that the port is that of GlitchTip's web server, within the time of the request."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.listener.support import (
    NO_TIME,
    TOKEN,
    Engine,
    Squatter,
    connected,
    container,
    forget,
    needs_root,
    own_server,
    stranger,
)

from glitchtip_api import Client, GlitchTipError, connections
from glitchtip_core import listener
from glitchtip_core.http import request
from glitchtip_core.listener import (
    ListenerError,
    require_expected,
)

pytestmark = needs_root


# --- what may pass ------------------------------------------------------------------------------------------


def test_a_stranger_is_final_and_what_is_not_known_may_pass(
    squat: Callable[..., Squatter], engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squatter = squat()
    with connected(squatter.port) as sock:
        assert listener.stranger(sock)[1] is False
        monkeypatch.setattr(listener, "_holders", lambda *_: [])
        assert listener.stranger(sock)[1] is True, "its process ended meanwhile"
    assert not passes(tmp_path, engine, container(1, "admin", "shop"), code=0)
    assert passes(tmp_path, engine, code=0), "the container is not there yet"
    assert passes(tmp_path, engine, container(1), code=1), "the engine does not answer"


def passes(root: Path, engine: Engine, *containers: dict[str, Any], code: int) -> bool:
    """Whether another try makes sense, where the kernel passed the connection on and Docker says this."""
    (root / "net").mkdir(exist_ok=True)
    (root / "net" / "tcp").write_text("  sl  local_address rem_address\n")
    forget()
    with own_server() as port, connected(port) as sock:
        for each in containers:
            each["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"] = str(port)
        engine.has(*containers, code=code)
        with pytest.raises(ListenerError) as refused:
            require_expected(sock, proc=root)
    return refused.value.passing


@pytest.mark.parametrize(("passing", "tries"), [(True, 2), (False, 1)])
def test_the_client_tries_again_only_what_may_pass(
    monkeypatch: pytest.MonkeyPatch, passing: bool, tries: int
) -> None:
    asked: list[float] = []

    def guard(_: socket.socket, left: float) -> tuple[str, bool]:
        asked.append(left)
        return ("who listens is not clear", passing) if len(asked) == 1 else ("", False)

    monkeypatch.setattr(connections, "guard", guard)
    with (
        own_server() as port,
        Client(f"http://127.0.0.1:{port}", TOKEN, retries=1, sleep=lambda _: None) as client,
        contextlib.suppress(GlitchTipError),
    ):
        client.transport.send("GET", "/api/0/")
    assert len(asked) == tries


# --- time ---------------------------------------------------------------------------------------------------


def test_docker_has_only_the_time_that_the_request_has_left(engine: Engine, tmp_path: Path) -> None:
    """An engine that hangs: the request ends in its time, and the next one is not kept waiting for it again."""
    engine.hangs()
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text("  sl  local_address rem_address\n")

    def took(port: int) -> float:
        began = time.monotonic()
        with pytest.raises(ListenerError, match="it is not known which container"):
            request(
                f"http://127.0.0.1:{port}/",
                what="it",
                timeout=NO_TIME,
                limit=1,
                check=lambda sock, left: require_expected(sock, left, tmp_path),
            )
        return time.monotonic() - began

    with own_server() as port:
        assert took(port) < listener.DOCKER_SECONDS / 2
    assert engine.asked == 1


def test_bad_news_is_kept_as_long_as_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [100.0], []

    def asks(seconds: float) -> Callable[..., None]:
        def ask(*_: Any) -> None:
            calls.append(now[0])
            now[0] += seconds
            raise ListenerError("no", passing=True)

        return ask

    monkeypatch.setattr(listener.time, "monotonic", lambda: now[0])
    checked = listener._Checked()
    for took, later, asked in ((2.0, 1.9, 1), (2.0, 2.1, 2), (60.0, 4.9, 1), (60.0, 5.1, 2), (0.1, 0.2, 2)):
        calls.clear()
        monkeypatch.setattr(listener, "require_container", asks(took))
        for wait in (later, 1000.0):
            with pytest.raises(ListenerError):
                checked.require_published(8080, 1.0)
            now[0] += wait
        assert len(calls) == asked, (took, later)


@pytest.mark.parametrize("client", ["core", "api"])
def test_the_check_is_given_what_is_left_of_the_time(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(connections, "guard", lambda _, left: (given.append(left), ("no", False))[1])
    with own_server() as port:
        if client == "core":
            request(
                f"http://127.0.0.1:{port}/",
                what="it",
                timeout=7,
                limit=9,
                check=lambda _, left: given.append(left),
            )
        else:
            with (
                Client(f"http://127.0.0.1:{port}", TOKEN, deadline=7, retries=0) as asking,
                pytest.raises(GlitchTipError),
            ):
                asking.organizations.list()
    assert len(given) == 1
    assert 0 < given[0] <= 7


# --- Docker -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="there is no system's Python here")
def test_dockers_proxy_must_lead_to_glitchtips_web_server(proxy: int, engine: Engine) -> None:
    def said() -> str:
        forget()
        with connected(proxy) as sock:
            return stranger(sock)

    engine.has(container(proxy))
    assert said() == ""
    engine.has(container(proxy, "web", "glitchtip-staging"))
    assert said() == ""
    engine.has(container(proxy, "admin", "shop"))
    assert "is published by the container shop-admin-1, which is not GlitchTip's web server" in said()
    engine.has(container(proxy), container(proxy, "admin", "shop"))
    assert "shop-admin-1" in said()
    for odd in ({}, container(proxy + 1)):
        engine.has(odd)
        assert f"no running container publishes port {proxy}" in said()
    engine.has({**container(proxy), "Config": {"Labels": None}})
    assert "is not GlitchTip's web server" in said()


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="there is no system's Python here")
@pytest.mark.parametrize("odd", ["not JSON", "[1]", '[{"NetworkSettings": []}]', "{}", "down"])
def test_an_engine_that_does_not_answer_is_no_yes(proxy: int, engine: Engine, odd: str) -> None:
    engine.has(container(proxy), text=None if odd == "down" else odd, code=int(odd == "down"))
    with connected(proxy) as sock:
        said = stranger(sock)
    assert "it is not known which container" in said or "no running container" in said


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="there is no system's Python here")
def test_docker_is_asked_once_for_many_connections_and_again_after_some_seconds(
    proxy: int, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.has(container(proxy))
    for _ in range(20):
        with connected(proxy) as sock:
            require_expected(sock)
    assert engine.asked == 2  # ps and inspect
    engine.has(container(proxy, "admin", "shop"))
    now = time.monotonic()
    monkeypatch.setattr(listener.time, "monotonic", lambda: now + 6)
    with connected(proxy) as sock, pytest.raises(ListenerError, match="shop-admin-1"):
        require_expected(sock)


def test_what_the_kernel_passed_on_must_lead_to_glitchtip_too(engine: Engine, tmp_path: Path) -> None:
    """A connection that no socket of this host has, as behind a rule of NAT: here the table of another host."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text("  sl  local_address rem_address\n")
    with own_server() as port, connected(port) as sock:
        engine.has(container(port))
        require_expected(sock, proc=tmp_path)
        forget()
        engine.has()
        with pytest.raises(ListenerError, match=f"no running container publishes port {port}"):
            require_expected(sock, proc=tmp_path)

"""No token goes to whoever took GlitchTip's port on this host: real sockets, and a squatter with another user's rights."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import glitchtip_ops
from glitchtip_api import Client, GlitchTipError, connections
from glitchtip_core import allowed_listeners, listener
from glitchtip_core.cgroups import text_of
from glitchtip_core.http import request
from glitchtip_core.listener import (
    ListenerError,
    is_in_unit,
    parse_end,
    parse_table,
    require_expected,
)
from glitchtip_cutover import api
from glitchtip_cutover.api import Tracker
from glitchtip_cutover.config import Side
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.mirror import NginxSettings

ROOT = Path(__file__).resolve().parents[3]
NOBODY, OTHER = 65534, 65533
TOKEN = "5" * 64
NO_TIME = 0.3


def stranger(sock: socket.socket) -> str:
    """Why nothing may be sent."""
    return listener.stranger(sock)[0]


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="takes on another user, which needs root on Linux"
)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(listener, "_checked", listener._Checked())
    monkeypatch.setattr(allowed_listeners, "SETTINGS", tmp_path / "listeners.json")


class Squatter:
    """A process of another user that listens and writes down what it is sent."""

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self.pid, self.port, self.log = pid, port, log

    def heard(self, seconds: float = 1.0) -> bytes:
        """What it was sent, once there is anything, or after some time nothing."""
        end = time.monotonic() + seconds
        while not self.log.stat().st_size and time.monotonic() < end:
            time.sleep(0.02)
        return self.log.read_bytes()


def serve(server: socket.socket, log: int) -> None:
    """Answer every request 200, and write down all that comes."""
    while True:
        taken, _ = server.accept()
        taken.settimeout(5)
        with contextlib.suppress(OSError), taken:
            data = taken.recv(65536)
            os.write(log, data)
            if data:
                taken.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                )


def forked(uid: int, work: Callable[[], None]) -> int:
    """The id of a child that does the work as that user, and ends with it."""
    pid = os.fork()
    if pid:
        return pid
    with contextlib.suppress(BaseException):
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        work()
    os._exit(1)


@pytest.fixture
def squat(tmp_path: Path) -> Iterator[Callable[..., Squatter]]:
    """squat(uid, address, family, bound): a squatter; ``bound`` is done before it takes on its user."""
    pids: list[int] = []

    def start(
        uid: int = NOBODY,
        address: str = "127.0.0.1",
        family: socket.AddressFamily = socket.AF_INET,
        server: socket.socket | None = None,
    ) -> Squatter:
        log = tmp_path / f"heard-{len(pids)}"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        reading, writing = os.pipe()

        def work() -> None:
            own = server or socket.socket(family, socket.SOCK_STREAM)
            if server is None:
                own.bind((address, 0))
                own.listen(5)
            os.write(writing, f"{own.getsockname()[1]}\n".encode())
            serve(own, descriptor)

        pids.append(forked(uid, work))
        os.close(writing)
        port = int(os.read(reading, 100))
        os.close(reading)
        os.close(descriptor)
        return Squatter(pids[-1], port, log)

    yield start
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def own_server(address: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """A server of this very process."""
    reading, writing = os.pipe()
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind((address, 0))
        server.listen(5)
        threading.Thread(target=_serve_until_closed, args=(server, writing), daemon=True).start()
        yield server.getsockname()[1]
    os.close(reading)


def _serve_until_closed(server: socket.socket, log: int) -> None:
    with contextlib.suppress(OSError):
        serve(server, log)


def connected(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), 5)


# --- every client of root's tools ---------------------------------------------------------------------------


def ask_api(port: int, _: Path) -> str:
    """The operator tools' client."""
    with (
        pytest.raises(GlitchTipError) as failed,
        Client(f"http://127.0.0.1:{port}", TOKEN, retries=0) as client,
    ):
        client.organizations.list()
    return str(failed.value)


def ask_cutover(port: int, root: Path) -> str:
    """The client of the switch."""
    (root / "token").write_text(TOKEN)
    (root / "token").chmod(0o600)
    side: Any = Side.__new__(Side)
    given = {"name": "new", "api_url": f"http://127.0.0.1:{port}", "organization": "o", "project": "p"}
    for name, value in {**given, "token_file": root / "token"}.items():
        object.__setattr__(side, name, value)
    with pytest.raises(CutoverError) as failed:
        Tracker(side, sleep=lambda _: None).project_id()
    return str(failed.value)


def ask_module(name: str) -> Callable[..., str]:
    """A module of ``library/``, as Ansible runs it: under the names of module_utils."""
    given: dict[str, dict[str, Any]] = {
        "glitchtip_info": {"kind": "organization", "token": TOKEN},
        "glitchtip_team": {"organization": "o", "slug": "s", "token": TOKEN},
        "glitchtip_token": {
            "email": "a@example.org",
            "password": TOKEN,
            "label": "x",
            "scopes": ["org:read"],
        },
        "glitchtip_event": {
            "token": TOKEN,
            "dsn": "http://" + TOKEN[:32] + "@127.0.0.1:{port}/1",
            "organization": "o",
            "project": "p",
            "message": "m",
        },
    }

    def ask(port: int, _: Path, run: Callable[..., Any]) -> str:
        options = {
            key: value.format(port=port) if isinstance(value, str) else value
            for key, value in given[name].items()
        }
        return str(run(name, url=f"http://127.0.0.1:{port}", timeout=3, **options)["msg"])

    return ask


MODULES = ("glitchtip_info", "glitchtip_team", "glitchtip_token", "glitchtip_event")
CLIENTS = {"operator tools": ask_api, "switch": ask_cutover}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_squatter_hears_nothing(squat: Callable[..., Squatter], tmp_path: Path, client: str) -> None:
    squatter = squat()
    said = CLIENTS[client](squatter.port, tmp_path)
    assert squatter.heard(0.3) == b""
    assert re.search(
        rf"127\.0\.0\.1:{squatter.port} is not served by GlitchTip: process {squatter.pid} \(\S+\) of user nobody \(uid 65534\) "
        r"listens there\. Nothing was sent",
        said,
    ), said
    assert TOKEN not in said


@pytest.mark.parametrize("client", CLIENTS)
def test_with_the_check_off_the_squatter_is_sent_the_token(
    squat: Callable[..., Squatter], tmp_path: Path, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    monkeypatch.setattr(connections, "guard", None)
    monkeypatch.setattr(api, "require_expected", lambda *_: None)
    squatter = squat()
    CLIENTS[client](squatter.port, tmp_path)
    assert TOKEN.encode() in squatter.heard()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_ansible_sends_a_squatter_nothing(
    squat: Callable[..., Squatter], tmp_path: Path, name: str, run_host_module: Callable[..., Any]
) -> None:
    squatter = squat()
    said = ask_module(name)(squatter.port, tmp_path, run_host_module)
    assert squatter.heard(0.3) == b""
    assert "is not served by GlitchTip" in said


def test_with_the_check_off_a_module_sends_the_token(
    squat: Callable[..., Squatter],
    tmp_path: Path,
    run_host_module: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control of the test above."""
    importlib.import_module("glitchtip_info")
    there = importlib.import_module("ansible.module_utils.glitchtip_api.connections")
    assert there.guard is not None
    monkeypatch.setattr(there, "guard", None)
    squatter = squat()
    with contextlib.suppress(KeyError):
        ask_module("glitchtip_info")(squatter.port, tmp_path, run_host_module)
    assert TOKEN.encode() in squatter.heard()


def test_every_module_and_command_that_makes_a_client_has_the_check() -> None:
    """Where the check is set: with the package of the tools, and in what every module imports."""
    assert glitchtip_ops.connections.guard is not None
    makes = re.compile(r"\b(Client|Transport|login|log_in|configure|describe|client_for|run)\(")
    modules = [
        path for path in sorted((ROOT / "library").glob("glitchtip_*.py")) if makes.search(path.read_text())
    ]
    assert len(modules) > 8
    for path in modules:
        assert "glitchtip_api.ansible_support import" in path.read_text(), path.name


# --- what is told apart -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "family", "host"),
    [
        ("127.0.0.1", socket.AF_INET, "127.0.0.1"),
        ("0.0.0.0", socket.AF_INET, "127.0.0.1"),
        ("127.0.0.2", socket.AF_INET, "127.0.0.2"),
        ("::1", socket.AF_INET6, "::1"),
        ("::", socket.AF_INET6, "127.0.0.1"),
        ("::", socket.AF_INET6, "::1"),
    ],
)
def test_on_every_address_of_this_host(
    squat: Callable[..., Squatter], address: str, family: socket.AddressFamily, host: str
) -> None:
    try:
        squatter = squat(NOBODY, address, family)
    except (OSError, ValueError):
        pytest.skip("this kernel has no such address")
    with connected(squatter.port, host) as sock:
        assert f"process {squatter.pid} " in stranger(sock)
    with own_server(address, family) as port, connected(port, host) as sock:
        assert stranger(sock) == ""


def test_what_took_the_connection_and_closed_its_port_is_found() -> None:
    """GlitchTip may listen there by now: the connection is still the squatter's."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def work() -> None:
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(("127.0.0.1", port))
        own.listen(1)
        taken, _ = own.accept()
        own.close()
        taken.recv(1)

    server.close()
    pid = forked(NOBODY, work)
    try:
        sock = _patiently(port)
        time.sleep(0.2)
        assert f"process {pid} " in stranger(sock)
        with socket.socket() as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ours.bind(("127.0.0.1", port))
            ours.listen(1)
            assert "(uid 65534) took the connection" in stranger(sock)
        sock.close()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _patiently(port: int) -> socket.socket:
    end = time.monotonic() + 5
    while True:
        try:
            return connected(port)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_workers_of_a_server_that_root_started_may_hold_its_socket(
    squat: Callable[..., Squatter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nginx: root's master opens the socket, workers of another user take the connections."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        squatter = squat(NOBODY, server=server)
        with connected(squatter.port) as sock:
            assert stranger(sock) == ""
            time.sleep(0.2)  # by now the worker has taken it
            assert stranger(sock) == ""
        listener._checked.__init__()  # type: ignore[misc]
        # As systemd, which keeps the socket that it opened for a service of another user.
        monkeypatch.setattr(listener, "_INIT", os.getpid())
        with connected(squatter.port) as sock:
            assert f"process {squatter.pid} " in stranger(sock)
    listener._checked.__init__()  # type: ignore[misc]
    monkeypatch.setattr(listener, "_INIT", 1)
    with connected(squatter.port) as sock:
        assert f"process {squatter.pid} " in stranger(sock), "root's process has closed it"


def test_a_socket_that_another_user_made_is_refused_in_roots_hands_too() -> None:
    """As standard input of a program with root's rights, while the socket's maker keeps a way to take it back."""
    os.seteuid(NOBODY)
    try:
        server = socket.socket()
    finally:
        os.seteuid(0)
    with server:
        server.bind(("127.0.0.1", 0))
        server.listen(5)
        with connected(server.getsockname()[1]) as sock:
            assert f"a socket of user nobody (uid 65534), held by process {os.getpid()} " in stranger(sock)


def beside(family: socket.AddressFamily, address: str, port: int, alone: bool = False) -> socket.socket:
    """A listening socket of the user ``nobody`` at that port."""
    server = socket.socket(family, socket.SOCK_STREAM)
    if alone:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((address, port))
    server.listen(5)
    return server


@pytest.mark.parametrize(
    ("ours", "host", "theirs"),
    [
        ((socket.AF_INET, "127.0.0.1"), "127.0.0.1", (socket.AF_INET6, "::")),
        ((socket.AF_INET, "0.0.0.0"), "127.0.0.1", (socket.AF_INET6, "::")),
        ((socket.AF_INET6, "::1"), "::1", (socket.AF_INET, "0.0.0.0")),
    ],
)
def test_the_same_port_of_another_family_is_another_door(
    squat: Callable[..., Squatter], ours: tuple[Any, str], host: str, theirs: tuple[Any, str]
) -> None:
    """GlitchTip's own socket is judged, and the neighbour's only by who connects to it."""
    with own_server(ours[1], ours[0]) as port:
        made = beside(theirs[0], theirs[1], port, alone=theirs[0] == socket.AF_INET6)
        squat(NOBODY, server=made)
        made.close()
        with connected(port, host) as sock:
            assert stranger(sock) == ""
        with connected(port, "::1" if theirs[0] == socket.AF_INET6 else "127.0.0.1") as sock:
            assert "of user nobody (uid 65534) listens there" in stranger(sock), "the control"


def test_a_connection_that_nobody_took_yet_is_judged_by_who_listens() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        with connected(server.getsockname()[1]) as sock:
            assert stranger(sock) == ""


def test_other_hosts_and_other_sockets_pass() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert stranger(ours) == ""
    with socket.socket() as unconnected:
        assert stranger(unconnected) == ""


def test_without_roots_rights_the_user_of_the_socket_decides(squat: Callable[..., Squatter]) -> None:
    """A child of one user asks what a server of root, of its own user and of a third one is."""
    theirs = squat(NOBODY)
    ours = squat(OTHER)
    found: dict[str, str] = {}
    with own_server() as roots:
        for name, port in (("theirs", theirs.port), ("ours", ours.port), ("roots", roots)):
            reading, writing = os.pipe()

            def ask(port: int = port, writing: int = writing) -> None:
                with connected(port) as sock:
                    os.write(writing, (stranger(sock) or "fine").encode())

            pid = forked(OTHER, ask)
            os.waitpid(pid, 0)
            found[name] = os.read(reading, 1000).decode()
            os.close(reading)
            os.close(writing)
    assert (found["ours"], found["roots"]) == ("fine", "fine")
    assert "a process of user nobody (uid 65534) listens there" in found["theirs"]


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
    listener._checked.__init__()  # type: ignore[misc]
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
                f"http://127.0.0.1:{port}/", what="it", timeout=7, limit=9, check=lambda _, left: given.append(left)
            )
        else:
            with (
                Client(f"http://127.0.0.1:{port}", TOKEN, deadline=7, retries=0) as asking,
                pytest.raises(GlitchTipError),
            ):
                asking.organizations.list()
    assert len(given) == 1
    assert 0 < given[0] <= 7


# --- what root allows ---------------------------------------------------------------------------------------


def test_what_root_names_may_listen(squat: Callable[..., Squatter], monkeypatch: pytest.MonkeyPatch) -> None:
    squatter = squat()
    cgroup = (Path("/proc") / str(squatter.pid) / "cgroup").read_text()
    monkeypatch.setattr(listener, "is_in_unit", lambda text, unit: text == cgroup and unit == "proxy.service")
    refusal = f"name its unit or user in {allowed_listeners.SETTINGS}"
    for allowed, passes in (
        (None, False),
        ({"units": ["other.service"], "users": ["daemon"]}, False),
        ({"units": ["proxy.service"]}, True),
        ({"users": ["nobody"]}, True),
    ):
        listener._checked.__init__()  # type: ignore[misc]
        allowed_listeners.SETTINGS.unlink(missing_ok=True)
        if allowed is not None:
            allowed_listeners.SETTINGS.write_text(json.dumps(allowed))
        with connected(squatter.port) as sock:
            assert (stranger(sock) == "") is passes
            assert passes or refusal in stranger(sock)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"user": []}', "must be a JSON object with units and users"),
        ('{"users": "www-data"}', "users must be a list of names"),
        ('{"users": ["no-such-user"]}', "there is no user no-such-user"),
        ('{"units": ["nginx"]}', "units must name services"),
        ('{"units": ["a/../b.service"]}', "units must name services"),
    ],
)
def test_a_list_that_is_wrong_allows_nobody_and_is_named(
    squat: Callable[..., Squatter], text: str, said: str
) -> None:
    allowed_listeners.SETTINGS.write_text(text)
    with connected(squat().port) as sock:
        assert said in stranger(sock)
        assert str(allowed_listeners.SETTINGS) in stranger(sock)
    with own_server() as port, connected(port) as sock:
        assert stranger(sock) == "", "what needs no list is not stopped by one that is wrong"


@pytest.mark.parametrize("spoil", ["owner", "mode", "link"])
def test_a_list_that_others_may_write_is_not_used(squat: Callable[..., Squatter], spoil: str) -> None:
    allowed_listeners.SETTINGS.write_text('{"users": ["nobody"]}')
    squatter = squat()
    with connected(squatter.port) as sock:
        assert stranger(sock) == "", "the control"
    listener._checked.__init__()  # type: ignore[misc]
    if spoil == "owner":
        os.chown(allowed_listeners.SETTINGS, NOBODY, 0)
    elif spoil == "mode":
        allowed_listeners.SETTINGS.chmod(0o666)
    else:
        allowed_listeners.SETTINGS.rename(allowed_listeners.SETTINGS.with_suffix(".there"))
        allowed_listeners.SETTINGS.symlink_to(allowed_listeners.SETTINGS.with_suffix(".there"))
    with connected(squatter.port) as sock:
        assert str(allowed_listeners.SETTINGS) in stranger(sock)


# --- tunnel and mirror ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cgroups", "expected"),
    [
        ("0::/system.slice/glitchtip-tunnel.service\n", True),
        ("0::/docker/0a1b/system.slice/glitchtip-tunnel.service\n", True),
        ("4:memory:/x\n1:name=systemd:/system.slice/glitchtip-tunnel.service\n0::/\n", True),
        ("4:memory:/system.slice/glitchtip-tunnel.service\n0::/\n", False),
        ("0::/user.slice/user-1000.slice/user@1000.service/system.slice/glitchtip-tunnel.service\n", False),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/glitchtip-tunnel.service\n", False),
        ("0::/system.slice/glitchtip-tunnel.service/child\n", False),
        ("0::/system.slice/other.service\n", False),
        ("", False),
    ],
)
def test_only_a_unit_of_the_systems_manager_is_the_tunnel(cgroups: str, expected: bool) -> None:
    assert is_in_unit(cgroups, "glitchtip-tunnel.service") is expected


#: What Python takes for the end of a line, or of a text file's; the kernel escapes a line feed alone in names that users choose.
ENDS = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("end", ENDS)
def test_a_name_that_a_user_chose_adds_no_line_to_a_file_of_the_kernel(tmp_path: Path, end: str) -> None:
    """A process may call itself ``X<end>Uid:...``, and a delegated control group may have such a name."""
    uids = "Uid:\t0\t0\t0\t0"
    text = f"Name:\tx{end}{uids}\nUid:\t1000\t1000\t1000\t1000\n"
    (tmp_path / "status").write_text(text, "utf-8", newline="")
    assert listener._users_of(tmp_path) == (1000, 1000, 1000, 1000)
    path = f"0::/user.slice/x{end}1:name=systemd:/system.slice/glitchtip-tunnel.service\n"
    (tmp_path / "cgroup").write_text(path, "utf-8", newline="")
    assert not is_in_unit(text_of(tmp_path), "glitchtip-tunnel.service")
    assert uids in (tmp_path / "status").read_text("utf-8").splitlines(), "the control"


def test_a_process_that_names_itself_like_roots_line_is_known_by_its_user() -> None:
    code = "import ctypes, os, time; ctypes.CDLL(None).prctl(15, b'\\x0bUid:\\t0\\t0\\t0\\t0'); os.setuid(65534); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert listener._users_of(Path(f"/proc/{process.pid}")) == (65534,) * 4
            known = Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
            assert "Uid:\t0\t0\t0\t0" in known, "the control"
        finally:
            process.kill()


@pytest.mark.parametrize("ours", allowed_listeners.UNITS)
def test_processes_of_tunnel_and_mirror_may_listen_as_their_own_user(
    squat: Callable[..., Squatter], monkeypatch: pytest.MonkeyPatch, ours: str
) -> None:
    squatter = squat()
    cgroup = (Path("/proc") / str(squatter.pid) / "cgroup").read_text()
    with connected(squatter.port) as sock:
        assert stranger(sock) != ""
        monkeypatch.setattr(listener, "is_in_unit", lambda text, unit: text == cgroup and unit == ours)
        assert stranger(sock) == ""


def test_roles_and_check_name_the_same_units() -> None:
    def named(role: str, variable: str) -> str:
        return str(yaml.safe_load((ROOT / "roles" / role / "vars/main.yml").read_text())[variable])

    assert (
        named("tunnel", "__tunnel_unit"),
        named("parallel_run", "__parallel_run_mirror_unit"),
    ) == allowed_listeners.UNITS
    assert NginxSettings.unit in allowed_listeners.UNITS


# --- Docker -------------------------------------------------------------------------------------------------


class Engine:
    """A ``docker`` on PATH that answers from a file and counts its calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "calls"
        program = root / "docker"
        program.write_text(
            f"#!/bin/sh\necho x >> {self.calls}\n"
            f'if [ "$1" = ps ]; then cat {root}/ids; else cat {root}/inspected; fi; exit $(cat {root}/code)\n'
        )
        program.chmod(0o755)
        self.has()

    def has(self, *containers: dict[str, Any], text: str | None = None, code: int = 0) -> None:
        """The containers that publish the port."""
        (self.root / "ids").write_text("".join(f"{number}\n" for number, _ in enumerate(containers)))
        (self.root / "inspected").write_text(json.dumps(containers) if text is None else text)
        (self.root / "code").write_text(str(code))

    def hangs(self) -> None:
        """It never answers."""
        program = self.root / "docker"
        program.write_text(f"#!/bin/sh\necho x >> {self.calls}\nexec sleep 60\n")

    @property
    def asked(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


def container(port: int, service: str = "web", project: str = "glitchtip") -> dict[str, Any]:
    return {
        "Name": f"/{project}-{service}-1",
        "Config": {"Labels": {"com.docker.compose.service": service, "com.docker.compose.project": project}},
        "NetworkSettings": {
            "Ports": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}], "9/tcp": None}
        },
    }


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    root = tmp_path / "engine"
    root.mkdir()
    monkeypatch.setenv("PATH", f"{root}:{os.environ['PATH']}")
    return Engine(root)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[int]:
    """The port of a process of root whose program is called docker-proxy."""
    program = tmp_path / "docker-proxy"
    shutil.copy("/usr/bin/python3", program)
    source = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(600)"
    process = subprocess.Popen([program, "-ISc", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="there is no system's Python here")
def test_dockers_proxy_must_lead_to_glitchtips_web_server(proxy: int, engine: Engine) -> None:
    def said() -> str:
        listener._checked.__init__()  # type: ignore[misc]
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
        listener._checked.__init__()  # type: ignore[misc]
        engine.has()
        with pytest.raises(ListenerError, match=f"no running container publishes port {port}"):
            require_expected(sock, proc=tmp_path)


# --- the kernel's table -------------------------------------------------------------------------------------


def test_the_kernels_table_is_read_as_it_is_written() -> None:
    assert str(parse_end("0100007F:1F90")[0]) == "127.0.0.1"
    assert parse_end("00000000000000000000000001000000:1F90")[1] == 8080
    assert str(parse_end("00000000000000000000000001000000:1F90")[0]) == "::1"
    assert str(parse_end("0000000000000000FFFF00000100007F:0001")[0]) == "127.0.0.1"
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000\n"
        "   1: nonsense\n\n"
    )
    (entry,) = parse_table(table, 8080)
    assert not list(parse_table(table, 8081))
    assert (entry.local[1], entry.state, entry.uid, entry.inode) == (8080, "0A", 1000, 4711)


def test_of_a_long_table_only_the_lines_of_the_port_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy host: ten thousand connections to another port, and to the same port of another host."""
    taken_apart: list[str] = []
    real = listener.parse_end
    monkeypatch.setattr(listener, "parse_end", lambda text: taken_apart.append(text) or real(text))
    rest = "0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000\n"
    others = [f"   1: 0100007F:{9000 + number % 900:04X} 0200007F:1F90 {rest}" for number in range(10_000)]
    table = "  sl  local_address\n" + "".join(others) + f"   0: 0100007F:1F90 00000000:0000 {rest}"
    assert len(list(parse_table(table, 8080))) == 1
    assert len(taken_apart) == 2
    assert len(list(parse_table(table, 9000))) == 12, "the control: the others are read when they are asked for"

"""No token goes to whoever took GlitchTip's port on this host: real sockets, and a squatter with another user's rights."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.listener.support import (
    NOBODY,
    OTHER,
    ROOT,
    Squatter,
    connected,
    forget,
    forked,
    needs_root,
    own_server,
    stranger,
)

from glitchtip_core import allowed_listeners, listener
from glitchtip_core.cgroups import text_of
from glitchtip_core.listener import (
    is_in_unit,
    parse_end,
    parse_table,
)
from glitchtip_cutover.mirror import NginxSettings

pytestmark = needs_root


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
        forget()
        # As systemd, which keeps the socket that it opened for a service of another user.
        monkeypatch.setattr(listener, "_INIT", os.getpid())
        with connected(squatter.port) as sock:
            assert f"process {squatter.pid} " in stranger(sock)
    forget()
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
        forget()
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
    forget()
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
    assert len(list(parse_table(table, 9000))) == 12, (
        "the control: the others are read when they are asked for"
    )

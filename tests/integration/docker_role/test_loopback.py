"""The rules for Docker before 28, on three network namespaces: a host with Docker's translations, a neighbour, a container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).resolve().parents[3] / "roles/docker/templates/docker-loopback.sh.j2"
HOST, NEIGHBOUR, CONTAINER = (f"gtm-{name}-{os.getpid()}" for name in ("host", "near", "cont"))
#: What a rule of Docker does for a port that is published on 127.0.0.1, and for one that is published to everybody.
SETUP = f"""
link add veth0 netns {HOST} type veth peer name eth0 netns {NEIGHBOUR}
link add br-x netns {HOST} type veth peer name eth0 netns {CONTAINER}
-n {HOST} addr add 192.0.2.1/24 dev veth0
-n {NEIGHBOUR} addr add 192.0.2.2/24 dev eth0
-n {HOST} addr add 172.30.0.1/24 dev br-x
-n {CONTAINER} addr add 172.30.0.2/24 dev eth0
-n {HOST} link set veth0 up
-n {HOST} link set br-x up
-n {NEIGHBOUR} link set eth0 up
-n {CONTAINER} link set eth0 up
-n {CONTAINER} route add default via 172.30.0.1
-n {NEIGHBOUR} route add 172.30.0.0/24 via 192.0.2.1
-n {NEIGHBOUR} link set lo up
-n {NEIGHBOUR} route del local 127.0.0.1 dev lo table local
-n {NEIGHBOUR} route del local 127.0.0.0/8 dev lo table local
-n {NEIGHBOUR} route add 127.0.0.1 via 192.0.2.1 dev eth0
netns exec {NEIGHBOUR} sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1
netns exec {HOST} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.veth0.rp_filter=0
netns exec {HOST} iptables -w 10 -t nat -A PREROUTING -d 127.0.0.1 -p tcp --dport 8080 -j DNAT --to 172.30.0.2:8080
netns exec {HOST} iptables -w 10 -t nat -A PREROUTING -d 192.0.2.1 -p tcp --dport 9090 -j DNAT --to 172.30.0.2:8080
"""
SERVER = "import socket; s = socket.create_server(('0.0.0.0', 8080))\nwhile True: c, _ = s.accept(); c.sendall(b'x'); c.close()"
CLIENT = (
    "import socket, sys; s = socket.socket(); s.settimeout(2); s.bind((sys.argv[3], 0));"
    "s.connect((sys.argv[1], int(sys.argv[2]))); sys.exit(not s.recv(1))"
)


def ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check, timeout=60)


def possible() -> bool:
    """Whether namespaces can be made here."""
    if os.geteuid() != 0 or any(shutil.which(name) is None for name in ("ip", "iptables", "python3")):
        return False
    made = ip("netns", "add", HOST, check=False).returncode == 0
    ip("netns", "del", HOST, check=False)
    return made


pytestmark = pytest.mark.skipif(not possible(), reason="needs root, iptables and network namespaces")


@pytest.fixture
def network() -> Iterator[None]:
    server: subprocess.Popen[bytes] | None = None
    try:
        for name in (HOST, NEIGHBOUR, CONTAINER):
            ip("netns", "add", name)
        for line in SETUP.strip().splitlines():
            ip(*line.split())
        argv = ["ip", "netns", "exec", CONTAINER, "python3", "-c", SERVER]
        server = subprocess.Popen(argv)
        end = time.monotonic() + 10
        while not reached(HOST, "172.30.0.2", 8080, "172.30.0.1") and time.monotonic() < end:
            time.sleep(0.1)
        yield
    finally:
        if server is not None:
            server.kill()
            server.wait(10)
        for name in (HOST, NEIGHBOUR, CONTAINER):
            ip("netns", "del", name, check=False)


def reached(where: str, address: str, port: int, own: str = "192.0.2.2") -> bool:
    return (
        ip("netns", "exec", where, "python3", "-c", CLIENT, address, str(port), own, check=False).returncode
        == 0
    )


def translated() -> int:
    """Packets to 127.0.0.1:8080 from outside that Docker's rule has sent on to the container so far."""
    text = ip("netns", "exec", HOST, "iptables", "-w", "10", "-t", "nat", "-vnxL", "PREROUTING").stdout
    found = re.search(r"^\s*(\d+) .*127\.0\.0\.1 .*dpt:8080", text, re.MULTILINE)
    assert found
    return int(found[1])


@pytest.mark.usefixtures("network")
def test_other_hosts_reach_neither_the_loopback_port_nor_the_container(tmp_path: Path) -> None:
    script = tmp_path / "docker-loopback"
    script.write_text(TEMPLATE.read_text().replace("{{ ansible_managed | comment }}", "#"))

    def rules(action: str) -> None:
        ip("netns", "exec", HOST, "sh", str(script), action)

    def packets_to_loopback() -> int:
        before = translated()
        reached(
            NEIGHBOUR, "127.0.0.1", 8080
        )  # whether the neighbour's own kernel takes the answer does not matter
        return translated() - before

    # The control: without the rules both ways are open.
    assert packets_to_loopback() > 0
    assert reached(NEIGHBOUR, "172.30.0.2", 8080)
    rules("start")
    rules("start")
    assert packets_to_loopback() == 0
    assert not reached(NEIGHBOUR, "172.30.0.2", 8080)
    assert reached(NEIGHBOUR, "192.0.2.1", 9090), "what is published to everybody stays so"
    assert reached(HOST, "172.30.0.2", 8080, "172.30.0.1"), "the host itself reaches its containers"
    rules("stop")
    rules("stop")
    assert packets_to_loopback() > 0
    assert reached(NEIGHBOUR, "172.30.0.2", 8080)

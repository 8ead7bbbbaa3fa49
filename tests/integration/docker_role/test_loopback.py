"""The rules for Docker before 28, on three network namespaces: a host with Docker's translations, a neighbour, a container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).resolve().parents[3] / "roles/docker/templates/docker-loopback.sh.j2"
HOST, NEIGHBOUR, CONTAINER = (f"gtm-{name}-{os.getpid()}" for name in ("host", "near", "cont"))
#: As Docker names the bridge of a network, and one that somebody else made.
BRIDGE, FOREIGN = "br-0123456789ab", "br-lan"
#: What a rule of Docker does for a port that is published on 127.0.0.1, and for one that is published to everybody.
SETUP = f"""
link add veth0 netns {HOST} type veth peer name eth0 netns {NEIGHBOUR}
link add {BRIDGE} netns {HOST} type veth peer name eth0 netns {CONTAINER}
-n {HOST} addr add 192.0.2.1/24 dev veth0
-n {NEIGHBOUR} addr add 192.0.2.2/24 dev eth0
-n {HOST} addr add 172.30.0.1/24 dev {BRIDGE}
-n {CONTAINER} addr add 172.30.0.2/24 dev eth0
-n {HOST} link set veth0 up
-n {HOST} link set {BRIDGE} up
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


@pytest.fixture
def rules(tmp_path: Path) -> Callable[[str], int]:
    """rules(action): the exit code of the script, run on the host."""
    script = tmp_path / "docker-loopback"
    script.write_text(TEMPLATE.read_text().replace("{{ ansible_managed | comment }}", "#"))
    state = f"STATE_DIRECTORY={tmp_path / 'state'}"
    # A network namespace has its own /sys/class/net only where it is mounted anew, as ip netns exec does.
    return lambda action: ip("netns", "exec", HOST, "env", state, "sh", str(script), action, check=False).returncode


@pytest.mark.usefixtures("network")
def test_other_hosts_reach_neither_the_loopback_port_nor_the_container(rules: Callable[[str], int]) -> None:
    def packets_to_loopback() -> int:
        before = translated()
        reached(NEIGHBOUR, "127.0.0.1", 8080)  # whether the neighbour's own kernel takes the answer does not matter
        return translated() - before

    # The control: without the rules both ways are open.
    assert packets_to_loopback() > 0
    assert reached(NEIGHBOUR, "172.30.0.2", 8080)
    assert rules("start") == 0
    assert rules("start") == 0
    assert packets_to_loopback() == 0
    assert not reached(NEIGHBOUR, "172.30.0.2", 8080)
    assert reached(NEIGHBOUR, "192.0.2.1", 9090), "what is published to everybody stays so"
    assert reached(HOST, "172.30.0.2", 8080, "172.30.0.1"), "the host itself reaches its containers"
    assert rules("stop") == 0
    assert rules("stop") == 0
    assert packets_to_loopback() > 0
    assert reached(NEIGHBOUR, "172.30.0.2", 8080)


@pytest.mark.usefixtures("network")
def test_another_bridge_is_left_alone_and_a_rule_for_all_bridges_goes(rules: Callable[[str], int]) -> None:
    """As br-lan, whose hosts this host routes to."""
    assert rules("start") == 0
    assert not reached(NEIGHBOUR, "172.30.0.2", 8080), "the control: as Docker's bridge it is closed"
    every = "-t mangle -I FORWARD ! -i br-+ -o br-+ -m conntrack --ctstate NEW -m conntrack ! --ctstate DNAT -j DROP"
    ip("netns", "exec", HOST, "iptables", "-w", "10", *every.split())
    for line in (f"link set {BRIDGE} down", f"link set {BRIDGE} name {FOREIGN}", f"link set {FOREIGN} up"):
        ip("-n", HOST, *line.split())
    assert not reached(NEIGHBOUR, "172.30.0.2", 8080), "the control: the rule of the earlier version closes it"
    assert rules("start") == 0
    assert reached(NEIGHBOUR, "172.30.0.2", 8080)


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("gone", ["-t raw -F PREROUTING", "-t mangle -F FORWARD"])
def test_a_rule_that_is_gone_is_noticed_and_set_again(rules: Callable[[str], int], gone: str) -> None:
    assert rules("check") == 1
    assert rules("start") == 0
    assert rules("check") == 0
    ip("netns", "exec", HOST, "iptables", "-w", "10", *gone.split())
    assert rules("check") == 1
    assert rules("start") == 0
    assert rules("check") == 0


@pytest.mark.usefixtures("network")
def test_rules_are_there_before_the_bridge_is_made_at_boot(rules: Callable[[str], int]) -> None:
    assert rules("start") == 0
    for line in (f"link set {BRIDGE} down", f"link set {BRIDGE} name waiting0"):
        ip("-n", HOST, *line.split())
    for table in ("raw", "mangle"):
        ip("netns", "exec", HOST, "iptables", "-w", "10", "-t", table, "-F")
    assert rules("start") == 0
    for line in (f"link set waiting0 name {BRIDGE}", f"link set {BRIDGE} up"):
        ip("-n", HOST, *line.split())
    assert not reached(NEIGHBOUR, "172.30.0.2", 8080)


def test_at_boot_the_unit_may_load_the_modules_of_iptables() -> None:
    """iptables-legacy runs modprobe where its tables are not there yet; later the engine has loaded them."""
    unit = TEMPLATE.with_name("docker-loopback.service.j2").read_text()
    bounded = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert bounded
    assert "CAP_SYS_MODULE" in bounded[1].split()
    assert "ProtectKernelModules" not in unit

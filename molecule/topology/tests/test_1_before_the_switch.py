"""After phases 0 to 3: what stands where, and a tunnel that leads to one port only."""

from __future__ import annotations

import json

from rig import topology, walk

TUNNEL = "glitchtip-tunnel.service"
SSH = (
    "ssh -F none -o BatchMode=yes -o ExitOnForwardFailure=yes -o UserKnownHostsFile=/etc/glitchtip-tunnel/known_hosts"
    " -i /etc/glitchtip-tunnel/id_ed25519"
)
ACCOUNT = f"glitchtip-tunnel@{topology.TRACKER.name}"
#: Forward to a target, say something there, and print how many bytes come back.
ASK = f"""
{SSH} -N -L 127.0.0.1:9998:TARGET {ACCOUNT} & forwarder=$!
for i in $(seq 25); do ss -Hltn sport = :9998 | grep -q . && break; sleep 0.2; done
python3 -c "import socket
asked = socket.create_connection(('127.0.0.1', 9998), 5)
asked.sendall(b'GET /api/0/ HTTP/1.0\\r\\n\\r\\n')
print(len(asked.recv(100)))"
kill $forwarder
"""


def test_each_server_has_the_evidence_of_its_own_phases(applications, tracker):
    for server, phases in ((tracker, {0, 1, 2, 3}), *((application, {0, 2, 3}) for application in applications)):
        found = {number for number in range(6) if server.file(f"{walk.EVIDENCE}/phase{number}.json").exists}
        assert found == phases


def test_the_local_test_says_that_the_product_s_own_sdk_was_not_tested():
    proof = str(walk.evidence("phase1", topology.TRACKER)["proof"])
    assert "10 of 10 scenarios of python" in proof
    assert "the product's own SDK was not tested" in proof


def test_the_staging_stack_left_nothing(tracker):
    assert not tracker.file("/opt/glitchtip-staging").exists
    assert "staging" not in tracker.check_output("docker volume ls -q; docker ps -a")


def test_there_is_no_engine_and_no_stack_on_the_servers_of_the_product(applications):
    for server in applications:
        assert not server.exists("docker")
        assert not server.exists("dockerd")
        assert not server.file("/opt/glitchtip").exists
        assert not server.service("glitchtip-backup.timer").exists


def test_glitchtip_listens_on_no_public_address(applications, tracker):
    public = {line.split()[3] for line in tracker.check_output("ss -Hltn").splitlines()}
    assert {address for address in public if not address.startswith("127.")} == {"0.0.0.0:22", "[::]:22"}
    for server in applications:
        assert server.socket("tcp://127.0.0.1:8080").is_listening
        assert not server.socket("tcp://0.0.0.0:8080").is_listening
        assert server.run(f"timeout 3 bash -c '</dev/tcp/{topology.TRACKER.name}/8080'").rc != 0


def test_each_tunnel_has_a_key_of_its_own_that_stays_where_it_was_made(applications, tracker):
    lines = tracker.file("/var/lib/glitchtip-tunnel/.ssh/authorized_keys").content_string.splitlines()
    assert len(lines) == len({line.split()[-4] for line in lines}) == 2
    assert all(line.startswith('restrict,port-forwarding,permitopen="127.0.0.1:8080",') for line in lines)
    for server in applications:
        key = server.file("/etc/glitchtip-tunnel/id_ed25519")
        assert (key.user, key.mode) == ("glitchtip-tunnel", 0o600)


def test_the_key_opens_no_shell_no_other_port_no_socket_and_lets_nobody_in(applications):
    server = applications[0]
    assert "not available" in server.run(f"{SSH} {ACCOUNT} id").stdout
    listening = server.run(f"timeout 10 {SSH} -N -R 127.0.0.1:9999:127.0.0.1:22 {ACCOUNT} || exit 1")
    assert "remote port forwarding failed" in listening.stderr
    for target, leads_there in (
        ("127.0.0.1:8080", True),
        ("127.0.0.1:22", False),
        ("/run/dbus/system_bus_socket", False),
    ):
        answer = server.run(ASK.replace("TARGET", target))
        assert (answer.stdout.strip() not in ("", "0")) == leads_there, (target, answer)


def test_the_tunnel_comes_back_when_it_is_killed(applications):
    for server in applications:
        before = server.service(TUNNEL).systemd_properties["MainPID"]
        server.check_output(f"kill -9 {before}")
        server.check_output(
            "for i in $(seq 50); do ss -Hltn sport = :8080 | grep -q . && exit 0; sleep 0.2; done; exit 1"
        )
        properties = server.service(TUNNEL).systemd_properties
        assert properties["ActiveState"] == "active"
        assert properties["MainPID"] != before


def test_every_server_was_judged_by_what_runs_on_it(applications, tracker):
    for server, watched in ((tracker, 4), (applications[0], 0), (applications[1], 0)):
        settings = json.loads(server.file("/etc/glitchtip-ops/soak.json").content_string)
        assert len(settings["services"]) == watched
        assert bool(settings["pm2_services"]) != bool(watched)

"""What the roles glitchtip and ops leave on a server: 5.2 with a separate worker, 6.2 as one process."""

import json
import os
import re

import pytest

DIRECTORY = "/opt/glitchtip"
CONFIG = "/etc/glitchtip-ops"
SECRETS = {
    "SECRET_KEY": r"[0-9a-f]{64}",
    "POSTGRES_PASSWORD": r"[0-9a-f]{32}",
}
GENERATED = r"[A-Za-z0-9_-]{32}"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def line5(host):
    return "line5" in host.check_output("hostname")


@pytest.fixture(scope="module")
def services(line5):
    return {"web", "postgres", "valkey"} | ({"worker"} if line5 else set())


@pytest.fixture(scope="module")
def containers(host):
    """Service name to what ``docker inspect`` says, of every container of this host."""
    found = json.loads(host.check_output("docker ps -aq | xargs docker inspect"))
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}


@pytest.fixture(scope="module")
def secrets(host):
    lines = host.file(f"{DIRECTORY}/.env").content_string.splitlines()
    return dict(line.split("=", 1) for line in lines)


def environment(container):
    return dict(entry.split("=", 1) for entry in container["Config"]["Env"])


def settings_document(host):
    """What the server says of itself to everybody."""
    program = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=10).read())"
    return json.loads(host.check_output("python3 -c %s %s", program, "http://127.0.0.1:8080/api/settings/"))


def test_the_containers_are_those_of_the_process_model(containers, services):
    assert set(containers) == services
    assert {each["Config"]["Labels"]["com.docker.compose.project"] for each in containers.values()} == {
        "glitchtip"
    }


def test_every_container_is_healthy_and_comes_back_after_a_boot(containers):
    for name, container in containers.items():
        assert container["State"]["Health"]["Status"] == "healthy", name
        assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped", name
        assert container["RestartCount"] == 0, name


def test_every_container_has_limits_and_all_reservations_fit_the_host(containers):
    """Limits are ceilings (docs/sizing.md): one alone must leave the product its memory, only reservations add up."""
    limits = {name: container["HostConfig"]["Memory"] for name, container in containers.items()}
    assert all(32 * MIB < limit < 512 * MIB for limit in limits.values()), limits
    assert sum(each["HostConfig"]["MemoryReservation"] for each in containers.values()) < 390 * MIB
    for name, container in containers.items():
        assert container["HostConfig"]["NanoCpus"] == 10**9, name
        assert container["HostConfig"]["PidsLimit"] == 256, name
        assert 0 < container["HostConfig"]["CpuShares"] < 1024, name
        assert 0 < container["HostConfig"]["MemoryReservation"] < limits[name], name


def test_the_kernel_holds_the_limit_of_the_web_container(host, containers):
    pid = containers["web"]["State"]["Pid"]
    path = host.check_output(f"sed -nE 's/^[0-9]+:(memory)?:(.*)/\\2/p' /proc/{pid}/cgroup | head -n 1")
    read = host.check_output(
        f"cat /sys/fs/cgroup/memory{path}/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup{path}/memory.max"
    )
    assert int(read) == containers["web"]["HostConfig"]["Memory"]


def test_the_application_cannot_write_to_its_image_nor_gain_rights(host, containers):
    for name in set(containers) & {"web", "worker"}:
        settings = containers[name]["HostConfig"]
        assert settings["ReadonlyRootfs"] is True
        assert settings["CapDrop"] == ["ALL"]
        assert not settings["CapAdd"]
        assert list(settings["Tmpfs"]) == ["/tmp"]
        tried = host.run(f"docker exec {containers[name]['Id']} touch /code/written")
        assert tried.rc != 0
        assert "Read-only file system" in tried.stderr
    for name, container in containers.items():
        assert "no-new-privileges:true" in container["HostConfig"]["SecurityOpt"], name
        assert container["HostConfig"]["Privileged"] is False, name


def test_logs_cannot_fill_the_disk(containers):
    for name, container in containers.items():
        assert container["HostConfig"]["LogConfig"] == {
            "Type": "json-file",
            "Config": {"max-size": "10m", "max-file": "3"},
        }, name


def test_the_port_is_open_on_the_loopback_address_only(host, containers, line5):
    assert containers["web"]["HostConfig"]["PortBindings"] == {
        "8080/tcp" if line5 else "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]
    }
    assert not any(each["HostConfig"]["PortBindings"] for name, each in containers.items() if name != "web")
    bound = {line.split()[3] for line in host.check_output("ss -Hltn 'sport = :8080'").splitlines()}
    assert bound == {"127.0.0.1:8080"}


def test_registration_is_closed(host):
    assert settings_document(host)["enableUserRegistration"] is False


def test_the_worker_of_the_5_2_line_processes_in_whole_batches(containers, line5):
    if not line5:
        pytest.skip("one process")
    found = environment(containers["worker"])
    assert found["SERVER_ROLE"] == "worker_with_beat"
    assert found["CELERY_WORKER_POOL"] == "threads"
    assert int(found["CELERY_WORKER_CONCURRENCY"]) * int(found["CELERY_WORKER_PREFETCH_MULTIPLIER"]) >= 100
    assert containers["worker"]["Config"]["StopTimeout"] == 30
    assert not [name for name in environment(containers["web"]) if name.startswith("CELERY_WORKER")]
    assert environment(containers["web"])["UWSGI_ADD_HEADER"] == "Connection: close"


def test_one_process_of_the_6_line_is_told_to_do_everything(containers, line5):
    if line5:
        pytest.skip("web and worker apart")
    found = environment(containers["web"])
    assert found["SERVER_ROLE"] == "all_in_one"
    assert not [name for name in found if name.startswith(("CELERY_", "UWSGI_", "EMAIL_"))]
    config = containers["web"]["Config"]
    assert (config["StopTimeout"], config["Hostname"]) == (30, "glitchtip-web")
    assert "vtasks_last_run" in config["Healthcheck"]["Test"][-1]


def test_the_number_of_hash_partitions_is_written_down_and_used(host, containers, line5):
    if line5:
        pytest.skip("of the 6.x line")
    written = host.file(f"{DIRECTORY}/.partition_hash_buckets").content_string
    assert written == environment(containers["web"])["PARTITION_HASH_BUCKETS"] + "\n" == "1\n"


def test_addresses_for_people_and_for_services_are_two(host, containers):
    assert environment(containers["web"])["GLITCHTIP_DOMAIN"] == "http://localhost:9090"
    assert json.loads(host.file(f"{CONFIG}/settings.json").content_string)["url"] == "http://127.0.0.1:8080"
    dsn = host.file(f"{CONFIG}/dsn").content_string
    assert re.fullmatch(r"http://[0-9a-f]{32}@127\.0\.0\.1:8080/[0-9]+", dsn)


def test_secrets_are_generated_and_for_root_only(host, secrets):
    file = host.file(f"{DIRECTORY}/.env")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    assert set(secrets) == set(SECRETS)
    for name, form in SECRETS.items():
        assert re.fullmatch(form, secrets[name]), name
    assert len(set(secrets.values())) == len(secrets)


def test_the_superusers_password_is_beside_the_file_that_backups_copy(host):
    file = host.file(f"{DIRECTORY}/.superuser-password")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    assert re.fullmatch(GENERATED, file.content_string.strip())


def test_no_secret_stands_in_a_file_that_others_may_read(host, secrets):
    for name in ("docker-compose.yml", "README.md", "deployed.json", ".migrated", ".superuser"):
        content = host.file(f"{DIRECTORY}/{name}").content_string
        assert not [key for key, value in secrets.items() if value in content], name
    compose = host.file(f"{DIRECTORY}/docker-compose.yml")
    assert (compose.user, compose.group, compose.mode) == ("root", "root", 0o640)
    assert host.file(DIRECTORY).mode == 0o750


def test_tokens_are_not_world_readable(host):
    assert host.file(f"{DIRECTORY}/.provisioning-token").mode == 0o600
    for name in ("token", "dsn", "settings.json"):
        file = host.file(f"{CONFIG}/{name}")
        assert (file.user, file.group, file.mode) == ("root", "glitchtip-ops", 0o640), name
    assert host.file(CONFIG).mode == 0o750
    assert re.fullmatch(r"[0-9a-f]{40,64}", host.file(f"{CONFIG}/token").content_string)
    assert host.run(f"runuser -u nobody -- cat {CONFIG}/token").rc != 0


def test_the_containers_run_the_images_of_the_record(host, containers):
    record = json.loads(host.file(f"{DIRECTORY}/deployed.json").content_string)
    assert set(record) == {"glitchtip", "postgres", "valkey"}
    for name, entry in record.items():
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", entry["digest"])
        pinned = f"{entry['reference']}@{entry['digest']}"
        service = "web" if name == "glitchtip" else name
        assert containers[service]["Config"]["Image"] == pinned
        local = json.loads(host.check_output(f"docker image inspect {pinned}"))[0]["Id"]
        assert containers[service]["Image"] == local
    assert host.file(f"{DIRECTORY}/deployed.json").mode == 0o640


def test_the_operators_find_a_readme(host, line5):
    readme = host.file(f"{DIRECTORY}/README.md").content_string
    version = os.environ["GTM_VERSION_5" if line5 else "GTM_VERSION_6"]
    assert f"# GlitchTip {version} on this host" in readme
    assert "http://127.0.0.1:8080" in readme
    assert "ssh -N -L 9090:127.0.0.1:8080" in readme


def test_the_operators_command_answers(host):
    assert host.run("glitchtip-ops --help").rc == 0


def test_nothing_half_done_is_left(host):
    assert host.check_output(f"find {DIRECTORY} {CONFIG} -name '*.part'") == ""
    assert host.check_output("docker ps -a --filter status=exited --quiet") == ""

"""What the role docker leaves on a server, from either source."""

import json

import pytest


@pytest.fixture
def official(host):
    return "official" in host.check_output("hostname")


def daemon_settings(host):
    return json.loads(host.file("/etc/docker/daemon.json").content_string)


def test_the_engine_runs_and_starts_on_boot(host):
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_engine_and_compose_2_answer(host):
    assert int(host.check_output("docker version --format '{{.Server.Version}}'").split(".")[0]) >= 26
    assert int(host.check_output("docker compose version --short").lstrip("v").split(".")[0]) >= 2


def test_the_settings_hold_what_the_role_wants(host):
    settings = daemon_settings(host)
    assert settings["log-driver"] == "json-file"
    assert settings["log-opts"]["max-size"] == "10m"
    assert settings["live-restore"] is True
    effective = host.check_output("docker info --format '{{.LiveRestoreEnabled}} {{.LoggingDriver}}'")
    assert effective == "true json-file"


def test_settings_of_somebody_else_stay(host, official):
    if not official:
        pytest.skip("only the official target had settings before")
    settings = daemon_settings(host)
    assert settings["labels"] == ["owner=somebody"]
    assert settings["log-opts"]["tag"] == "{{.Name}}"
    assert host.file("/etc/docker/daemon.json").mode == 0o640
    assert "owner=somebody" in host.check_output("docker info --format '{{.Labels}}'")


def test_the_packages_are_of_the_chosen_source(host, official):
    assert host.package("docker-ce").is_installed is official
    assert host.package("docker.io").is_installed is not official


def test_sources_of_somebody_else_stay_and_are_used(host, official):
    assert not host.file("/etc/apt/sources.list.d/docker.sources").exists
    assert not host.file("/etc/apt/keyrings/docker.asc").exists
    if official:
        source = host.file("/etc/apt/sources.list.d/docker-ce.sources").content_string
        assert "Signed-By: /usr/share/keyrings/company-docker.asc" in source
        assert host.file("/etc/apt/sources.list.d/company.list").content_string.count("\n") == 1


def test_apt_still_works_with_the_sources(host):
    done = host.run("apt-get -q update")
    assert done.rc == 0, done.stderr
    assert "configured multiple times" not in done.stderr


def test_no_scratch_directory_is_left(host):
    assert host.check_output("find /tmp -name 'docker-apt-*'") == ""

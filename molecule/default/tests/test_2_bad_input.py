"""Bad input gets one clear sentence, an exit code that is not 0, and a server that stays as it was."""

from __future__ import annotations

import pytest
from rig import demo, walk, world

ENV = "/opt/ai-admin/.env"


def test_too_little_memory(refuses):
    assert "MiB" in refuses("phase0_prepare", "-e", "preflight_min_memory_mib=999999")


def test_too_little_disk(refuses):
    assert "MiB" in refuses("phase0_prepare", "-e", "preflight_min_disk_running_mib=99999999")


def test_a_port_that_somebody_else_holds(refuses):
    assert "sshd" in refuses(
        "phase0_prepare", "-e", "preflight_port=22", "-e", "preflight_bind_address=0.0.0.0"
    )


def test_a_service_that_is_not_online(damaged):
    with damaged("pm2 stop whatsapp-backup-service", "pm2 start whatsapp-backup-service"):
        run = walk.attempt("phase0_prepare", quiet=True, fast=True)
    assert run.code != 0
    assert "whatsapp-backup-service" in run.output


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (f"rm {ENV}", ".env"),
        (f"sed -i /^SENTRY_DSN=/d {ENV}", "SENTRY_DSN"),
        (f"echo SENTRY_DSN=http://x@192.0.2.1/1 >> {ENV}", "SENTRY_DSN"),
    ],
)
def test_an_environment_file_without_exactly_one_dsn(damaged, refuses, damage, sentence):
    with damaged(
        f"cp -p {ENV} /root/env.kept && {damage}", f"cp -p /root/env.kept {ENV} && rm /root/env.kept"
    ):
        assert sentence in refuses("phase0_prepare")


def test_a_host_that_does_not_answer(refuses):
    assert "UNREACHABLE" in refuses("phase0_prepare", "-e", "ansible_port=9")


def test_the_wrong_host(refuses):
    assert "demo" in refuses("phase0_prepare", "-e", "preflight_target_id=another")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_phase_before_its_predecessor(number, refuses):
    assert f"phase{number - 1}" in refuses(walk.PHASES[number], "-e", "migration_id=another")


def test_an_image_whose_digest_is_not_the_expected_one(refuses):
    wanted = f"sha256:{'0' * 64}"
    assert f"but {wanted} is expected" in refuses("phase2_deploy", "-e", f"glitchtip_image_digest={wanted}")


def test_no_output_of_a_refusal_shows_a_secret(refuses):
    hidden = demo.secrets_of_demo(demo.sentry.provision()[0])
    output = refuses("phase4_cutover", "-e", "migration_id=another", "-vvv", fast=False)
    assert [name for name, value in hidden.items() if value in output] == []
    world.ssh("true")

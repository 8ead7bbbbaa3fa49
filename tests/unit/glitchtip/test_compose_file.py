"""The Compose file of each server line and process model, rendered by Ansible from the role's own variables and read as YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from drills.role_stack import load_plugins, trusted
from sizing import SHARED_BUFFERS_MIB, glitchtip_sizing

ROLE = Path(__file__).resolve().parents[3] / "roles/glitchtip"
load_plugins()
IMAGES = {
    "glitchtip": "glitchtip/glitchtip:1@sha256:" + "1" * 64,
    "postgres": "postgres:17@sha256:" + "2" * 64,
    "valkey": "valkey/valkey:8@sha256:" + "3" * 64,
}
SPLIT_5 = {"glitchtip_version": "5.2.0", "glitchtip_process_model": "split"}
SPLIT_6 = {"glitchtip_version": "6.2.6", "glitchtip_process_model": "split"}
ONE_PROCESS = {"glitchtip_version": "6.2.6", "glitchtip_process_model": "all_in_one"}
MODELS = {"5.2 split": SPLIT_5, "6.2 split": SPLIT_6, "6.2 all_in_one": ONE_PROCESS}

every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
every_split = pytest.mark.parametrize("model", [SPLIT_5, SPLIT_6], ids=["5.2 split", "6.2 split"])


def render(name, **variables):
    """The text of a template of the role, with its defaults, its variables and those of the test."""
    known = {"ansible_managed": "Ansible managed", "glitchtip_images": IMAGES, "role_path": str(ROLE)}
    for part in ("defaults", "vars"):
        known |= yaml.safe_load((ROLE / part / "main.yml").read_text(encoding="utf-8"))
    templar = Templar(loader=DataLoader(), variables=trusted(known | variables))
    # As the module template does: blocks take their newline with them.
    text = "#jinja2: trim_blocks:True\n" + (ROLE / "templates" / name).read_text(encoding="utf-8")
    return templar.template(trust_as_template(text))


def compose(model, **variables):
    return yaml.safe_load(render("docker-compose.yml.j2", **model, **variables))


def sized(model):
    return {"version": model["glitchtip_version"], "process_model": model["glitchtip_process_model"]}


def mebibytes(text):
    assert text.endswith("m"), text
    return int(text[:-1])


@every_model
def test_the_services_are_those_of_the_process_model(model):
    worker = set() if model is ONE_PROCESS else {"worker"}
    document = compose(model)
    assert set(document["services"]) == {"web", "postgres", "valkey"} | worker
    assert set(document["volumes"]) == {"postgres", "valkey"}
    assert document["name"] == "glitchtip"


@every_model
def test_every_service_runs_its_pinned_image(model):
    for name, service in compose(model)["services"].items():
        assert service["image"] == IMAGES.get(name, IMAGES["glitchtip"])


@every_model
def test_the_only_port_is_on_the_loopback_address(model):
    services = compose(model, glitchtip_port=8123)["services"]
    inside = 8080 if model is SPLIT_5 else 8000
    assert services["web"]["ports"] == [f"127.0.0.1:8123:{inside}"]
    assert [name for name, service in services.items() if "ports" in service] == ["web"]
    assert f"127.0.0.1:{inside}/api/settings/" in services["web"]["healthcheck"]["test"][-1]


@every_model
def test_every_service_has_limits_and_reservations_below_them(model):
    services = compose(model)["services"]
    limits = {name: service["deploy"]["resources"]["limits"] for name, service in services.items()}
    for name, service in services.items():
        reserved = mebibytes(service["deploy"]["resources"]["reservations"]["memory"])
        assert 0 < reserved < mebibytes(limits[name]["memory"]), name
        assert 0 < float(limits[name]["cpus"]) < 1, name
    # Ceilings may exceed what is free; what is needed at a time may not: 1.9 GB less 756 MB of the product and 200 of the system.
    assert glitchtip_sizing(**sized(model))["required_mib"] < 1900 - 756 - 200


@every_model
def test_the_limits_are_those_of_the_sizing_and_the_pools_are_the_ones_it_counts(model):
    sizing = glitchtip_sizing(**sized(model))
    services = compose(model)["services"]
    assert {
        name: service["deploy"]["resources"]["limits"]["memory"] for name, service in services.items()
    } == {name: entry["memory"] for name, entry in sizing["services"].items()}
    for name in set(services) & {"web", "worker"}:
        assert services[name]["environment"]["DATABASE_POOL_MAX_SIZE"] == str(sizing["pool"])
    command = services["postgres"]["command"]
    assert f"shared_buffers={SHARED_BUFFERS_MIB}MB" in command
    assert int(re.search(r"max_connections=(\d+)", str(command))[1]) > sizing["pool"] * 2 * 2 + 3


@every_model
def test_a_larger_backlog_raises_the_limit_of_valkey_alone(model):
    before, after = (
        {
            name: mebibytes(service["deploy"]["resources"]["limits"]["memory"])
            for name, service in found.items()
        }
        for found in (
            compose(model)["services"],
            compose(model, glitchtip_backlog_events=100_000)["services"],
        )
    )
    assert after.pop("valkey") > 4 * before.pop("valkey")
    assert after == before


@every_model
def test_valkey_keeps_its_queue_in_the_log_and_has_no_maxmemory(model):
    command = compose(model)["services"]["valkey"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--save"] == ""
    assert options["--no-appendfsync-on-rewrite"] == "no"
    assert "--maxmemory" not in options


@every_model
def test_every_service_has_a_health_check_that_runs_without_a_shell(model):
    for name, service in compose(model)["services"].items():
        check = service["healthcheck"]
        assert check["test"][0] == "CMD", name
        assert all(isinstance(word, str) for word in check["test"]), name
        assert {"interval", "timeout", "retries", "start_period", "start_interval"} < set(check), name


@every_model
def test_the_programs_in_health_checks_are_valid_python(model):
    services = compose(model)["services"]
    programs = [
        each["healthcheck"]["test"][-1]
        for each in services.values()
        if "python" in each["healthcheck"]["test"]
    ]
    assert len(programs) == (1 if model is ONE_PROCESS else 2)
    for program in programs:
        compile(program, "healthcheck", "exec")


@every_model
def test_the_application_waits_for_healthy_stores_and_is_confined(model):
    services = compose(model)["services"]
    for name in set(services) & {"web", "worker"}:
        service = services[name]
        assert service["depends_on"] == {
            "postgres": {"condition": "service_healthy"},
            "valkey": {"condition": "service_healthy"},
        }
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert "cap_add" not in service
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert service["logging"] == {
            "driver": "json-file",
            "options": {"max-size": "10m", "max-file": "3"},
        }, name


@every_model
def test_secrets_come_from_the_environment_file_only(model):
    services = compose(model, glitchtip_email_url="smtp://user:hidden@mail.example.org:587")["services"]
    assert "hidden" not in str(services)
    for name in set(services) & {"web", "worker"}:
        environment = services[name]["environment"]
        assert environment["SECRET_KEY"] == "${SECRET_KEY:?}"
        assert environment["DATABASE_PASSWORD"] == "${POSTGRES_PASSWORD:?}"
        assert environment["EMAIL_URL"] == "${EMAIL_URL:?}"
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "${POSTGRES_PASSWORD:?}"


@every_model
def test_without_a_mail_server_no_mail_leaves(model):
    assert compose(model)["services"]["web"]["environment"]["EMAIL_URL"] == "consolemail://"


@every_model
def test_nobody_can_sign_up_and_every_value_is_text(model):
    for service in compose(model)["services"].values():
        environment = service.get("environment", {})
        assert all(isinstance(value, str) for value in environment.values()), environment
        if "SECRET_KEY" in environment:
            assert environment["ENABLE_USER_REGISTRATION"] == "false"
            assert environment["ENABLE_ORGANIZATION_CREATION"] == "false"


@every_split
def test_one_worker_and_its_stop_stores_the_batch_in_hand(model):
    worker = compose(model)["services"]["worker"]
    assert worker["stop_grace_period"] == "30s"
    assert "replicas" not in worker["deploy"]


@pytest.mark.parametrize("version", ["5.1.0", "5.2.1", "v5.3.0", "6.2.6"])
def test_a_version_that_is_not_known_to_keep_its_scheduler_in_a_thread_has_the_images_own_command(version):
    assert "command" not in compose({**SPLIT_5, "glitchtip_version": version})["services"]["worker"]


@pytest.mark.parametrize("version", ["5.2.0", "v5.2.0"])
def test_where_it_is_known_the_workers_scheduler_is_a_thread(version):
    command = compose({**SPLIT_5, "glitchtip_version": version})["services"]["worker"]["command"]
    assert command[:2] == ["python", "-c"]
    compile(command[2], "worker", "exec")
    assert "_Process = None" in command[2]
    assert "$" not in command[2].replace("$$", "")


@pytest.mark.parametrize("version", ["5.1.0", "5.2.0"])
def test_the_health_check_of_the_worker_reads_the_schedulers_sign_of_life(version):
    check = compose({**SPLIT_5, "glitchtip_version": version})["services"]["worker"]["healthcheck"]
    assert check["test"][:5] == ["CMD", "python", "-I", "-S", "-c"]
    assert "/tmp/beat_mark" in check["test"][5]
    assert "/tmp/celerybeat-schedule" in check["test"][5]


def test_the_worker_of_the_5_2_line_takes_a_whole_batch():
    services = compose(SPLIT_5)["services"]
    environment = services["worker"]["environment"]
    assert environment["SERVER_ROLE"] == "worker_with_beat"
    assert environment["CELERY_WORKER_POOL"] == "threads"
    batch = int(environment["CELERY_WORKER_CONCURRENCY"]) * int(
        environment["CELERY_WORKER_PREFETCH_MULTIPLIER"]
    )
    assert batch >= 100
    assert not [name for name in services["web"]["environment"] if name.startswith("CELERY_")]
    assert services["web"]["environment"]["UWSGI_ADD_HEADER"] == "Connection: close"
    assert services["web"]["environment"]["PORT"] == "8080"


@pytest.mark.parametrize(
    ("model", "roles"),
    [(SPLIT_6, {"web": "web", "worker": "worker"}), (ONE_PROCESS, {"web": "all_in_one"})],
    ids=["6.2 split", "6.2 all_in_one"],
)
def test_the_6_line_is_told_its_roles_and_nothing_of_celery(model, roles):
    services = compose(model)["services"]
    assert {name: services[name]["environment"]["SERVER_ROLE"] for name in roles} == roles
    for name in roles:
        environment = services[name]["environment"]
        assert not [key for key in environment if key.startswith(("CELERY_", "UWSGI_", "IS_CELERY"))]
        assert environment["SKIP_INIT"] == "true"


@pytest.mark.parametrize(
    ("model", "name"),
    [(SPLIT_5, "GLITCHTIP_MAX_EVENT_LIFE_DAYS"), (SPLIT_6, "GLITCHTIP_RETENTION_DAYS")],
    ids=["5.2", "6.2"],
)
def test_retention_has_the_lines_own_name(model, name):
    environment = compose(model, glitchtip_retention_days=30)["services"]["web"]["environment"]
    assert environment[name] == "30"
    assert len({"GLITCHTIP_MAX_EVENT_LIFE_DAYS", "GLITCHTIP_RETENTION_DAYS"} & set(environment)) == 1


@pytest.mark.parametrize("given", [True, "yes", "true"])
@pytest.mark.parametrize("whom", ["allow_private_ips", "uptime_allow_private_ips"])
def test_private_addresses_are_allowed_when_asked_for(given, whom):
    name = f"GLITCHTIP_{whom.upper()}"
    environment = compose(SPLIT_6, **{f"glitchtip_{whom}": given})["services"]["web"]["environment"]
    assert environment[name] == "true"
    assert compose(SPLIT_6)["services"]["web"]["environment"][name] == "false"


def test_resources_of_one_service_can_be_changed_alone():
    before = compose(SPLIT_5)["services"]
    after = compose(SPLIT_5, glitchtip_resources={"worker": {"memory": "300m"}})["services"]
    assert after["worker"]["deploy"]["resources"]["limits"] == {"memory": "300m", "cpus": "0.40"}
    assert (
        after["worker"]["deploy"]["resources"]["reservations"]
        == before["worker"]["deploy"]["resources"]["reservations"]
    )
    assert after["web"] == before["web"]


def test_the_workers_command_can_be_replaced():
    command = ["celery", "-A", "glitchtip", "worker", "--loglevel", 'it\'s: "quoted"']
    assert compose(SPLIT_5, glitchtip_worker_command=command)["services"]["worker"]["command"] == command


def test_addresses_survive_characters_of_yaml():
    address = "http://localhost:9090/#x: 'y'"
    environment = compose(SPLIT_6, glitchtip_public_url=address)["services"]["web"]["environment"]
    assert environment["GLITCHTIP_DOMAIN"] == address


def test_a_second_stack_has_its_own_name():
    assert compose(SPLIT_6, glitchtip_project_name="glitchtip-staging")["name"] == "glitchtip-staging"


@every_model
def test_the_readme_names_version_addresses_and_where_the_password_is(model):
    text = render("README.md.j2", **model, glitchtip_port=8123, glitchtip_dir="/srv/glitchtip")
    assert f"# GlitchTip {model['glitchtip_version']} on this host" in text
    assert "ssh -N -L 9090:127.0.0.1:8123" in text
    assert "`SUPERUSER_PASSWORD` in `/srv/glitchtip/.env`" in text
    assert "{{" not in text

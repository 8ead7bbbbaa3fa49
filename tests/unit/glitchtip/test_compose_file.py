"""The Compose file of each server line and process model, rendered by Ansible from the role's own variables and read as YAML."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from drills.role_stack import load_plugins, trusted
from sizing import SHARED_BUFFERS_MIB, glitchtip_sizing

from glitchtip_api.version import ServerVersion

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
every_6 = pytest.mark.parametrize("model", [SPLIT_6, ONE_PROCESS], ids=["split", "all_in_one"])
every_split = pytest.mark.parametrize("model", [SPLIT_5, SPLIT_6], ids=["5.2 split", "6.2 split"])


def render(name, **variables):
    """The text of a template of the role, with its defaults, its variables and those of the test."""
    return rendered(name, json.dumps(variables, sort_keys=True))


@cache
def rendered(name, variables):
    """As ``render``, with the test's variables as JSON."""
    known = {"ansible_managed": "Ansible managed", "glitchtip_images": IMAGES, "role_path": str(ROLE)}
    for part in ("defaults", "vars"):
        known |= yaml.safe_load((ROLE / part / "main.yml").read_text(encoding="utf-8"))
    templar = Templar(loader=DataLoader(), variables=trusted(known | json.loads(variables)))
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
        assert float(limits[name]["cpus"]) == 1, name
        assert 0 < service["cpu_shares"] < 1024, name
        # pids_limit beside limits of deploy is refused by Compose.
        assert (service["deploy"]["resources"]["limits"]["pids"], "pids_limit" in service) == (256, False), name
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
@pytest.mark.parametrize(
    ("engine", "known"),
    [
        ("20.10.24+dfsg1", False),
        ("24.0.9", False),
        ("25.0.0", True),
        ("26.1.5+dfsg1", True),
        ("100.0.1", True),
        ("", True),
    ],
)
def test_an_engine_before_25_gets_no_start_interval(model, engine, known):
    services = compose(model, __glitchtip_engine={"stdout": engine})["services"]
    assert {"start_interval" in service["healthcheck"] for service in services.values()} == {known}


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
        needs = {store: entry["condition"] for store, entry in service["depends_on"].items()}
        assert needs == {"postgres": "service_healthy", "valkey": "service_healthy"}
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
        assert [key for key in environment if key.startswith("EMAIL_")] == ["EMAIL_URL"]
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "${POSTGRES_PASSWORD:?}"


@every_model
def test_without_a_mail_server_no_mail_leaves(model):
    """On the 6 line any name that begins so switches e-mail on, and links would come into the log."""
    services = compose(model)["services"]
    for name in set(services) & {"web", "worker"}:
        found = {
            key: value for key, value in services[name]["environment"].items() if key.startswith("EMAIL_")
        }
        assert found == ({"EMAIL_URL": "consolemail://"} if model is SPLIT_5 else {})


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


def holder(model):
    """The service that holds worker and scheduler."""
    return compose(model)["services"]["web" if model is ONE_PROCESS else "worker"]


SIX_ONLY = {
    "DATABASE_POOL_MIN_SIZE": "1",
    "DATABASE_POOL_MAX_SIZE": "6",
    "LOG_LEVEL": "WARNING",
    "GLITCHTIP_ENABLE_LOGS": "false",
    "PARTITION_HASH_BUCKETS": "1",
    "VTASKS_CONCURRENCY": "8",
    "VTASKS_DLQ_CAP": "5000",
    "VTASKS_RESCUE_INTERVAL": "0",
    "VTASKS_MAX_RESCUES": "1",
    "SKIP_INIT": "true",
}


@every_6
def test_web_and_worker_of_the_6_line_have_the_same_settings_of_the_queue(model):
    """The limit of rescues travels with the task, so it is the one of whoever queued it."""
    services = compose(model)["services"]
    for name in set(services) & {"web", "worker"}:
        environment = services[name]["environment"]
        assert {key: environment.get(key) for key in SIX_ONLY} == SIX_ONLY, name
    # Two pools a process must leave connections of 40 for people and backups.
    processes = len(set(services) & {"web", "worker"})
    assert 2 * processes * int(SIX_ONLY["DATABASE_POOL_MAX_SIZE"]) <= 24


def test_nothing_of_the_6_line_is_set_on_5_2():
    for service in compose(SPLIT_5)["services"].values():
        names = set(service.get("environment", {})) - {"DATABASE_POOL_MIN_SIZE", "DATABASE_POOL_MAX_SIZE"}
        assert not names & (set(SIX_ONLY) | {"VTASKS_HEALTH_CHECK_FILE"})
        assert not [name for name in names if name.startswith(("VTASKS_", "GRANIAN_"))]
        assert "hostname" not in service


@every_6
def test_who_holds_the_worker_of_6_has_time_to_drain_a_fixed_name_and_restarts_with_its_stores(model):
    service = holder(model)
    assert service["stop_grace_period"] == "30s"
    assert service["hostname"] == ("glitchtip-web" if model is ONE_PROCESS else "glitchtip-worker")
    assert all(entry["restart"] is True for entry in service["depends_on"].values())


def test_a_host_name_has_no_underscore():
    services = compose(SPLIT_6, glitchtip_project_name="glitchtip_two")["services"]
    assert services["worker"]["hostname"] == "glitchtip-two-worker"


@pytest.mark.parametrize(
    ("given", "expected"), [({"memory": "384m"}, 384), ({"memory": "1g"}, 1024)], ids=["m", "g"]
)
def test_granian_never_starts_its_worker_anew_before_the_kernel_ends_the_container(given, expected):
    environment = compose(ONE_PROCESS, glitchtip_resources={"web": given})["services"]["web"]["environment"]
    assert int(environment["GRANIAN_WORKERS_MAX_RSS"]) > expected
    assert environment["GRANIAN_WORKERS"] == "1"
    grace = int(environment["GRANIAN_WORKERS_KILL_TIMEOUT"])
    assert int(environment["VTASKS_SHUTDOWN_CANCEL_GRACE"]) < grace < 30
    split = compose(SPLIT_6)["services"]["web"]["environment"]
    assert not [name for name in split if name.startswith("GRANIAN_")]


@every_6
def test_postgres_of_6_has_locks_for_its_partitions(model):
    command = compose(model)["services"]["postgres"]["command"]
    assert "max_locks_per_transaction=512" in command
    assert not [word for word in compose(SPLIT_5)["services"]["postgres"]["command"] if "locks" in word]


def test_the_number_of_hash_partitions_is_left_out_where_the_image_decided_it():
    environment = compose(SPLIT_6, __glitchtip_partition_hash_buckets="")["services"]["web"]["environment"]
    assert "PARTITION_HASH_BUCKETS" not in environment


class Valkey:
    """Answers one GET with what a test says, and writes down what was asked."""

    def __init__(self, answer):
        self.asked = b""
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        connection, _ = self._listening.accept()
        with connection:
            self.asked = connection.recv(200)
            connection.sendall(self._answer)


def mark(seconds):
    text = str(time.time() - seconds).encode()
    return b"$%d\r\n%s\r\n" % (len(text), text)


@every_6
@pytest.mark.parametrize(
    ("answer", "uptime", "well"),
    [
        (lambda: mark(1), 3600, True),
        (lambda: mark(119), 3600, True),
        (lambda: mark(121), 3600, False),
        (lambda: mark(30), 20, False),  # of the scheduler before the restart
        (lambda: b"$-1\r\n", 3600, False),
        (lambda: b"$5\r\nwhat?\r\n", 3600, False),
        (lambda: b"-LOADING\r\n", 3600, False),
        (lambda: b"", 3600, False),
    ],
    ids=["fresh", "119 s", "121 s", "older than the container", "no mark", "no number", "error", "silence"],
)
def test_the_health_check_of_6_follows_the_schedulers_mark(tmp_path, model, answer, uptime, well):
    program = holder(model)["healthcheck"]["test"][3]
    valkey = Valkey(answer())
    for name, text in (("stat", f"1 (a) b) S {' '.join(['0'] * 18)} 0 0"), ("uptime", f"{uptime}.5 1.0")):
        (tmp_path / name).write_text(text)
    replaced = {
        "('valkey', 6379)": f"('127.0.0.1', {valkey.port})",
        "/proc/1/stat": str(tmp_path / "stat"),
        "/proc/uptime": str(tmp_path / "uptime"),
    }
    for old, new in replaced.items():
        assert old in program
        program = program.replace(old, new)
    scheduler = program[program.index("import os, socket") :]  # behind the web server's part
    done = subprocess.run([sys.executable, "-c", scheduler], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is well, done.stderr
    assert valkey.asked == b"GET {vt}:scheduler:vtasks_last_run:uptime-dispatch-checks\r\n"
    assert "$" not in program, "Compose would take it for a variable"


def test_the_all_in_one_process_is_well_only_if_web_and_scheduler_are():
    program = holder(ONE_PROCESS)["healthcheck"]["test"][3]
    assert "/api/settings/" in program
    assert "vtasks_last_run" in program
    assert "vtasks" not in compose(SPLIT_6)["services"]["web"]["healthcheck"]["test"][3]


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
    assert after["worker"]["deploy"]["resources"]["limits"] == {"memory": "300m", "cpus": "1.00", "pids": 256}
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
    assert "password: in `/srv/glitchtip/.superuser-password`" in text
    assert "{{" not in text


@every_model
def test_the_readmes_commands_name_services_that_exist(model):
    text = render("README.md.j2", **model)
    named = {line.split("`")[1].split()[-1] for line in text.splitlines() if " stop -t 30 " in line}
    assert named == {"web" if model is ONE_PROCESS else "worker"}
    if model is ONE_PROCESS:
        assert " worker`" not in text
    assert ("run-migrate.sh" in text) == (model is not SPLIT_5)


@every_6
def test_the_readme_offers_no_http_tunnel_to_people_with_an_https_address(model):
    """The cookies of 6 are Secure then: a browser that comes over http cannot log in."""
    text = render("README.md.j2", **model, glitchtip_public_url="https://errors.example.org")
    assert "ssh -N -L" not in text
    assert "ssh -N -L" in render("README.md.j2", **SPLIT_5, glitchtip_public_url="https://errors.example.org")


@every_model
def test_the_readme_labels_a_line_that_was_never_walked(model):
    text = render("README.md.j2", **model)
    assert ("never walked on a real server" in text) == (model is not SPLIT_5)


@pytest.mark.parametrize("version", ["5.1.0", "5.2.0", "v5.2.1", "6.1.7", "6.2.6", "v6.2.6", "6.5.20"])
def test_role_and_client_agree_on_what_was_walked(version):
    walked = ServerVersion.parse(version).walked
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    templar = Templar(loader=DataLoader(), variables=trusted({**variables, "glitchtip_version": version}))
    assert templar.template(trust_as_template("{{ glitchtip_walked | bool }}")) is walked
    text = templar.template(trust_as_template("{{ glitchtip_walked_text }}"))
    assert ("never walked" in text) is not walked


def test_phase_0_warns_and_the_evidence_of_phases_1_and_2_says_what_was_walked():
    playbooks = ROLE.parents[1] / "playbooks"
    label = yaml.safe_load((ROLE / "tasks/label.yml").read_text(encoding="utf-8"))
    assert label[0]["when"] == "not glitchtip_walked | bool"
    tasks = yaml.safe_load((playbooks / "phase0_prepare.yml").read_text(encoding="utf-8"))[0]["tasks"]
    included = [task.get("ansible.builtin.include_role") for task in tasks]
    assert {"name": "glitchtip", "tasks_from": "label"} in included
    for name in ("phase1_local_test.yml", "phase2_deploy.yml"):
        tasks = yaml.safe_load((playbooks / name).read_text(encoding="utf-8"))[0]["tasks"]
        (evidence,) = [task["migration_evidence"] for task in tasks if "migration_evidence" in task]
        assert evidence["data"]["walked"] == "{{ glitchtip_walked_text }}", name


def kept_buckets(wanted, *, written=None, migrated=None):
    """The number that tasks/partitions.yml settles on."""
    tasks = yaml.safe_load((ROLE / "tasks/partitions.yml").read_text(encoding="utf-8"))
    (facts,) = [task["ansible.builtin.set_fact"] for task in tasks if "ansible.builtin.set_fact" in task]
    files = {"__glitchtip_buckets": written, "__glitchtip_migrated_before": migrated}
    found = {
        name: {} if text is None else {"content": base64.b64encode(f"{text}\n".encode()).decode()}
        for name, text in files.items()
    }
    templar = Templar(
        loader=DataLoader(), variables=trusted(found | {"glitchtip_partition_hash_buckets": wanted})
    )
    return str(templar.template(trust_as_template(facts["__glitchtip_partition_hash_buckets"])))


@pytest.mark.parametrize(
    ("wanted", "written", "migrated", "kept"),
    [
        (1, None, None, "1"),  # new
        (3, None, None, "3"),
        (1, "4", "glitchtip/glitchtip:6.2.6@sha256:1", "4"),  # changed later
        (1, "4", None, "4"),  # the first migration failed half way
        (1, None, "glitchtip/glitchtip:6.2.6@sha256:1", ""),  # made before the number was written down
        (1, None, "registry.example.org:5000/standin/glitchtip:v6.1.7@sha256:1", ""),
        (1, None, "glitchtip/glitchtip:5.2.0@sha256:6", "1"),  # the first migration of 6.x is still to come
    ],
)
def test_the_number_of_hash_partitions_is_the_first_migrations(wanted, written, migrated, kept):
    assert kept_buckets(wanted, written=written, migrated=migrated) == kept


def test_the_number_is_written_down_before_the_compose_file_and_the_migration():
    tasks = yaml.safe_load((ROLE / "tasks/configure.yml").read_text(encoding="utf-8"))
    names = [task["name"] for task in tasks]
    assert names.index("Settle the number of hash partitions") < names.index("Write the Compose file")
    (settle,) = [task for task in tasks if task["name"] == "Settle the number of hash partitions"]
    assert settle["when"] == "__glitchtip_6 | bool"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"local_test_passed_before": False, "local_test_result": {}}, {}),
        ({"local_test_passed_before": False}, {}),  # check mode
        ({"local_test_passed_before": True, "local_test_before": {"proof": "of an older release"}}, {}),
        ({"local_test_passed_before": False, "local_test_result": {"image_facts": None}}, {}),
        (
            {
                "local_test_passed_before": False,
                "local_test_result": {
                    "image_facts": {"reason": "", "facts": [{"name": "a", "answer": "yes", "file": "/x"}]}
                },
            },
            {"a": "yes"},
        ),
    ],
    ids=["no report", "nothing", "older report", "another machine", "facts"],
)
def test_the_evidence_of_phase_1_holds_what_the_image_said(variables, said):
    path = ROLE.parents[1] / "playbooks/phase1_local_test.yml"
    tasks = yaml.safe_load(path.read_text(encoding="utf-8"))[0]["tasks"]
    (evidence,) = [task["migration_evidence"] for task in tasks if "migration_evidence" in task]
    templar = Templar(loader=DataLoader(), variables=trusted({"local_test_before": {}, **variables}))
    assert templar.template(trust_as_template(evidence["data"]["image_says"])) == said

"""The role preflight says why it refuses, all reasons at once, and says nothing about a host that will do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from drills.role_stack import load_plugins
from sizing import glitchtip_backlog_within, glitchtip_sizing

ROLE = Path(__file__).resolve().parents[3] / "roles" / "preflight"
load_plugins()

SIZING = glitchtip_sizing("5.2.0")
NEEDED = SIZING["required_mib"]
GOOD = {
    "migration_id": "demo",
    "role_path": str(ROLE),
    "glitchtip_version": "5.2.0",
    "inventory_hostname": "server",
    "groups": {"all": ["server"], "servers": ["server"]},
    "__preflight_capacity": {
        "memory": {"total_mib": 1900, "available_mib": 910, "limited_by": "/sys/fs/cgroup"},
        "disks": [{"path": "/var/lib", "free_mib": 9000}, {"path": "/opt", "free_mib": 9000}],
        "ports": [{"port": 8080, "free": True, "own": False, "held_by": ""}],
        "compose": {"project": "glitchtip", "containers": [], "memory_mib": 0},
        "os": {"id": "debian", "version_id": "13", "name": "Debian GNU/Linux 13", "python": "3.13.5"},
        "identity": {"hostname": "server", "machine_id": "abc"},
    },
    "__preflight_staging": {
        "compose": {"project": "glitchtip-staging", "containers": [], "memory_mib": 0},
    },
    "__preflight_pm2": {
        "daemon_running": True,
        "home": "/root/.pm2",
        "node": "/usr/bin/node",
        "node_version": "v20.19.2",
        "processes": [],
        "missing": [],
        "not_online": [],
        "crash_loops": [],
        "others": [{"user": "app", "home": "/home/app/.pm2", "services": ["hobby"], "expected": []}],
    },
    "__preflight_node": {"stdout": "v20.19.2"},
    "__preflight_env_count": {"results": [{"stdout": "1"}, {"stdout": "1"}]},
    "__preflight_target_content": {"changed": False, "skipped": True},
}


LOOP = {"name": "api", "restarts": 812, "uptime_seconds": 1, "cwd": "/opt/ai-admin", "rising": True}
LOOP_SENTENCE = (
    "api restarts again and again in PM2 of root (812 restarts, up for 1 s): it is online only between two crashes. "
    "Read `pm2 logs api --err` and start it anew once it is corrected"
)


def problems(changes):
    """Evaluate the role's own list of problems for a good host with changes as ``{"a.b.0.c": value}``."""
    loader = DataLoader()
    variables = {
        **loader.load_from_file(str(ROLE / "defaults" / "main.yml"), trusted_as_template=True),
        **loader.load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True),
        **copy.deepcopy(GOOD),
    }
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = variables
        for key in parents:
            place = place[int(key) if key.isdigit() else key]
        place[int(last) if last.isdigit() else last] = value
    expression = trust_as_template("{{ __preflight_problems }}")
    return Templar(loader=loader, variables=variables).template(expression)


CAPACITY, PM2 = "__preflight_capacity", "__preflight_pm2"


def test_a_good_host_has_no_problem():
    assert problems({}) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {f"{CAPACITY}.memory.available_mib": NEEDED - 1},
            (
                f"{NEEDED - 1} MiB of memory are available (of 1900 MiB, limited by /sys/fs/cgroup), "
                f"GlitchTip needs {NEEDED} MiB: {SIZING['working_mib']} MiB to work and {SIZING['backlog_mib']} MiB for 20000 events that wait "
                "while its worker is stopped. Free memory on the host, or set glitchtip_backlog_events to "
                f"{glitchtip_backlog_within(NEEDED - 1, SIZING)} or less."
            ),
        ),
        (
            {f"{CAPACITY}.memory.available_mib": 100},
            (
                "100 MiB of memory are available (of 1900 MiB, limited by /sys/fs/cgroup), "
                f"GlitchTip needs {NEEDED} MiB: {SIZING['working_mib']} MiB to work and {SIZING['backlog_mib']} MiB for 20000 events that wait "
                "while its worker is stopped. Free memory on the host."
            ),
        ),
        (
            {"preflight_min_memory_mib": 999999},
            (
                "910 MiB of memory are available (of 1900 MiB, limited by /sys/fs/cgroup), "
                "preflight_min_memory_mib asks for 999999 MiB."
            ),
        ),
        ({f"{CAPACITY}.disks.1.free_mib": 100}, "100 MiB are free for /opt, 3072 MiB are needed."),
        (
            {f"{CAPACITY}.ports.0": {"free": False, "own": False, "held_by": "nc (pid 7, user root)"}},
            "Port 8080 on 127.0.0.1 is taken by nc (pid 7, user root): stop that or choose another port.",
        ),
        (
            {f"{PM2}.not_online": [{"name": "a", "status": "errored"}, {"name": "b", "status": "stopped"}]},
            "Not online in PM2 of root: a (errored), b (stopped).",
        ),
        ({f"{PM2}.missing": ["a", "b"]}, "PM2 of root does not know a, b."),
        (
            {f"{PM2}.daemon_running": False, f"{PM2}.missing": ["a"]},
            "No PM2 of the user root runs on this host (/root/.pm2).",
        ),
        (
            {PM2: {"msg": "PM2 did not print its process list as JSON."}},
            "PM2 did not print its process list as JSON.",
        ),
        (
            {f"{PM2}.others.0.expected": ["ai-admin-api"]},
            (
                "ai-admin-api runs in PM2 of another user or home (app, /home/app/.pm2), "
                "preflight_pm2_user says root."
            ),
        ),
        (
            {"__preflight_env_count": {"results": [{"rc": 2, "stdout": ""}, {"rc": 2, "stdout": ""}]}},
            "/opt/ai-admin/.env does not exist or cannot be read.",
        ),
        (
            {"__preflight_env_count": {"results": [{"stdout": "0"}, {"stdout": "0"}]}},
            "/opt/ai-admin/.env has no SENTRY_DSN.",
        ),
        (
            {"__preflight_env_count": {"results": [{"stdout": "2"}, {"stdout": "1"}]}},
            "/opt/ai-admin/.env has 2 lines of SENTRY_DSN, exactly one is needed.",
        ),
        (
            {"__preflight_env_count": {"results": [{"stdout": "1"}, {"stdout": "0"}]}},
            "SENTRY_DSN in /opt/ai-admin/.env is empty.",
        ),
        ({f"{PM2}.node_version": "v18.20.1"}, "Node.js is v18.20.1, 20 or newer is needed."),
        (
            {"preflight_manager": "systemd", "__preflight_node.stdout": "v18.20.1"},
            "Node.js is v18.20.1, 20 or newer is needed.",
        ),
        (
            {"preflight_manager": "systemd", "__preflight_node": {"msg": "no such file"}},
            "Node.js was not found at /usr/bin/node.",
        ),
        (
            {f"{PM2}.node_version": "", f"{PM2}.node": "/root/.nvm/node"},
            "Node.js was not found at /root/.nvm/node, or the user root cannot run it.",
        ),
        (
            {f"{PM2}.node_version": "", f"{PM2}.node": ""},
            (
                "No Node.js was found for /usr/local/bin/pm2 (beside it, in what the daemon of PM2 was started with, in /usr/local/bin, "
                "in /usr/bin): set preflight_node_binary to the path of the node that runs the product."
            ),
        ),
        (
            {f"{PM2}.crash_loops": [{**LOOP, "holders": []}]},
            f"{LOOP_SENTENCE}.",
        ),
        (
            {f"{PM2}.crash_loops": [{**LOOP, "holders": [{"pid": 17, "program": "node", "ports": [3000, 3001]}]}]},
            (
                f"{LOOP_SENTENCE}. Process 17 (node), which PM2 does not manage, runs in the same directory (/opt/ai-admin) and holds port "
                "3000, 3001: where it was left by an earlier start of api, stop it (`kill 17`)."
            ),
        ),
        (
            {f"{CAPACITY}.os.python": "3.10.12"},
            "The system's Python is 3.10.12, the switch and its way back need 3.11 or newer.",
        ),
        (
            {f"{CAPACITY}.os": {"id": "fedora", "version_id": "42", "name": "Fedora 42", "python": "3.13.5"}},
            "The system is Fedora 42, supported are debian 12, debian 13, ubuntu 24.04.",
        ),
        (
            {"__preflight_target_content": {"content": "b3RoZXIK"}},
            (
                "This host is marked as other in /etc/glitchtip-migration-target, "
                "the inventory means server: "
                "check the address in the inventory."
            ),
        ),
        (
            {"preflight_machine_id": "def"},
            "This is not the expected machine: /etc/machine-id of server is abc, the inventory says def.",
        ),
    ],
)
def test_each_reason_is_one_clear_sentence(changes, sentence):
    assert problems(changes) == [sentence]


def test_all_reasons_are_told_together():
    changes = {
        f"{CAPACITY}.memory.available_mib": 10,
        f"{PM2}.missing": ["a"],
        "__preflight_env_count": {"results": [{"stdout": "0"}, {"stdout": "0"}]},
    }
    assert len(problems(changes)) == 3


def test_a_repeat_passes_although_our_own_stack_holds_memory_disk_and_port():
    running = {
        f"{CAPACITY}.memory.available_mib": 100,
        f"{CAPACITY}.compose": {"project": "glitchtip", "containers": ["glitchtip-web-1"], "memory_mib": 560},
        f"{CAPACITY}.disks.0.free_mib": 1500,
        f"{CAPACITY}.ports.0": {"free": False, "own": True, "held_by": "container glitchtip-web-1"},
        "__preflight_target_content": {"content": "c2VydmVyCg=="},
    }
    assert problems(running) == []
    without = {key: value for key, value in running.items() if "compose" not in key}
    assert len(problems(without)) == 2


def test_a_staging_stack_that_phase_1_left_is_no_reason_to_refuse():
    """The server of the operators: 910 MiB free, of which an interrupted phase 1 keeps 330."""
    left = {"project": "glitchtip-staging", "containers": ["glitchtip-staging-web-1"], "memory_mib": 330}
    less = {f"{CAPACITY}.memory.available_mib": 910 - 330}
    assert len(problems(less)) == 1
    assert problems({**less, "__preflight_staging.compose": left}) == []
    play = yaml.safe_load((ROLE.parents[1] / "playbooks/phase1_local_test.yml").read_text(encoding="utf-8"))
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    assert play[0]["vars"]["glitchtip_project_name"] == "{{ local_test_compose_project }}"
    assert variables["__preflight_staging_project"] == "{{ local_test_compose_project | default('glitchtip-staging') }}"


def test_a_host_is_judged_by_what_it_is_to_be():
    """With two groups a server of the product needs no room for GlitchTip, and GlitchTip's server no PM2."""
    split = {"groups": {"app_servers": ["server"], "glitchtip_servers": ["tracker"]}}
    small = {f"{CAPACITY}.memory.available_mib": 1, f"{CAPACITY}.disks.0.free_mib": 1}
    without_product = {
        PM2: {"changed": False, "skipped": True},
        "__preflight_node": {"rc": 2},
        "__preflight_env_count.results.0.stdout": "",
    }
    assert len(problems(small)) == 2
    assert problems({**split, **small}) == []
    assert len(problems({**split, **without_product})) >= 2
    turned = {"groups": {"app_servers": ["other"], "glitchtip_servers": ["server"]}}
    assert problems({**turned, **without_product}) == []
    assert len(problems({**turned, **small})) == 2


@pytest.mark.parametrize(("user", "refusals"), [("glitchtip-tunnel", 0), ("root", 1)])
def test_on_a_server_of_the_product_alone_only_the_tunnel_may_hold_the_port(user, refusals):
    listener = {"conflicts": True, "holders": [{"pid": 7, "process": "ssh", "user": user}], "containers": []}
    held = {"free": False, "own": False, "held_by": f"ssh (pid 7, user {user})", "listeners": [listener]}
    split = {"groups": {"app_servers": ["server"], "glitchtip_servers": ["tracker"]}}
    assert len(problems({**split, f"{CAPACITY}.ports.0": held})) == refusals


def test_services_of_another_manager_are_not_looked_for_in_pm2():
    assert problems({"preflight_manager": "systemd", PM2: {"changed": False, "skipped": True}}) == []


def test_a_cluster_that_is_down_is_named_once():
    down = [{"name": "api", "status": "stopped"}] * 2
    assert problems({f"{PM2}.not_online": down}) == ["Not online in PM2 of root: api (stopped)."]


REASONS = {
    "__preflight_inventory": {"problems": ["main.yml line 1: wrong."]},
    "__preflight_product": {"problems": ["api: no instrument file."], "notes": [], "env_files_read": True},
    "__preflight_refusals": ["docker_source does not fit."],
    "__preflight_calendars": {"results": [{"rc": 1, "__preflight_timer": {"name": "backups_on_calendar", "value": "x"}}]},
}


def evaluated(expression, **changes):
    loader = DataLoader()
    variables = {
        **loader.load_from_file(str(ROLE / "defaults" / "main.yml"), trusted_as_template=True),
        **loader.load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True),
        **copy.deepcopy(GOOD),
        **changes,
    }
    return Templar(loader=loader, variables=variables).template(trust_as_template(f"{{{{ {expression} }}}}"))


def test_reasons_of_every_source_are_reported_together():
    old = {**GOOD["__preflight_pm2"], "node_version": "v1.0.0"}
    told = evaluated("__preflight_reasons", **REASONS, __preflight_pm2=old)
    assert len(told) == 5
    assert told[0] == "main.yml line 1: wrong."
    assert any(text.startswith("backups_on_calendar (x) is no time of a systemd timer") for text in told)
    assert evaluated("__preflight_reasons") == []
    for name in REASONS:
        assert len(evaluated("__preflight_reasons", **{name: REASONS[name]})) == 1


def test_each_kind_of_server_asks_the_roles_that_it_will_get():
    """Docker refuses docker_source: distro where its Compose is too old; a server of the product alone gets no Docker."""
    assert {"docker", "glitchtip", "parallel_run"} <= set(evaluated("__preflight_later_roles"))
    split = {"app_servers": ["server"], "glitchtip_servers": ["tracker"]}
    assert evaluated("__preflight_later_roles", groups=split) == ["tunnel", "parallel_run"]
    roles = ROLE.parent
    assert all((roles / name / "tasks/validate.yml").exists() for name in ("docker", "glitchtip", "parallel_run", "tunnel"))
    text = (roles / "docker/tasks/validate.yml").read_text(encoding="utf-8")
    assert "has no Compose v2 among its own packages: set docker_source to official" in text

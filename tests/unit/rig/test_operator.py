"""What `make operator` decides with: whether records agree with running SDK clients, and the inventory that it fills in."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import yaml
from rig import images, operator, operator_inventory, operator_server, running
from rig.shell import RigError

from glitchtip_cutover.window import parse_window

OLD = "http://aaaaaaaaaaaaaaaa@sentry.example.org:9000/1"
NEW = "http://bbbbbbbbbbbbbbbb@127.0.0.1:8090/1"
EXPECTED = running.Client.of_dsn(NEW)
STRAY = running.Client.of_dsn(OLD)


def recorded(*names: str, proof: str = "probe") -> list[dict[str, str]]:
    return [{"name": name, "proof": proof} for name in names]


def test_a_service_whose_every_process_has_the_expected_client_is_no_problem():
    found = [running.Instance("api", (EXPECTED,)), running.Instance("api", (EXPECTED,))]
    assert running.strays(found, ["api"], EXPECTED) == []
    assert running.false_proofs(found, recorded("api", "api"), EXPECTED) == []


@pytest.mark.parametrize(
    "client",
    [
        STRAY,
        running.Client.of_dsn("http://cccccccccccccccc@127.0.0.1:8090/1"),
        running.Client.of_dsn("http://bbbbbbbbbbbbbbbb@127.0.0.1:8090/2"),
        running.Client.of_dsn("http://bbbbbbbbbbbbbbbb@127.0.0.1:8080/1"),
        running.Client(EXPECTED.host, EXPECTED.project, EXPECTED.key_sha256, enabled=False),
        running.Client("no DSN", "", "", enabled=False),
    ],
    ids=["old tracker", "another key", "another project", "another port", "switched off", "without DSN"],
)
def test_one_process_of_a_cluster_that_differs_makes_its_proof_false(client):
    found = [running.Instance("api", (EXPECTED,)), running.Instance("api", (client,))]
    assert len(running.strays(found, ["api"], EXPECTED)) == 1
    (sentence,) = running.false_proofs(found, recorded("api"), EXPECTED)
    assert sentence.startswith("api is recorded as proven (probe) and really reports to")


def test_a_second_client_in_one_process_counts_too():
    found = [running.Instance("web", (EXPECTED, STRAY))]
    assert running.strays(found, ["web"], EXPECTED)
    assert running.false_proofs(found, recorded("web", proof="own_event"), EXPECTED)


@pytest.mark.parametrize("proof", running.UNPROVEN)
def test_what_is_recorded_as_unproven_is_no_false_proof_but_a_stray_all_the_same(proof):
    found = [running.Instance("api", (STRAY,))]
    assert running.false_proofs(found, recorded("api", proof=proof), EXPECTED) == []
    assert running.strays(found, ["api"], EXPECTED)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ([], "api is not among the running services"),
        ([running.Instance("api", (), "it does not run (stopped)")], "it does not run"),
        ([running.Instance("api", ())], "no running SDK client"),
    ],
)
def test_a_service_that_could_not_be_asked_is_a_problem(found, named):
    (problem,) = running.strays(found, ["api"], EXPECTED)
    assert named in problem


def test_no_sentence_holds_a_key():
    found = [running.Instance("api", (running.Client.of_dsn("http://cccccccccccccccc@127.0.0.1:8090/1"),))]
    sentences = running.strays(found, ["api"], EXPECTED) + running.false_proofs(
        found, recorded("api"), EXPECTED
    )
    assert sentences
    assert not any("cccc" in sentence or "bbbb" in sentence for sentence in sentences)


def test_what_the_script_prints_is_read_behind_other_lines():
    row = {
        "service": "api",
        "clients": [
            {
                "host": EXPECTED.host,
                "project": EXPECTED.project,
                "key": EXPECTED.key_sha256,
                "enabled": True,
                "pid": 1,
            }
        ],
        "problem": "",
    }
    silent = {"service": "job", "clients": [{"pid": 2, "sdk": True}], "problem": ""}
    first, second = running.parse("a notice\n" + json.dumps([row, silent]) + "\n")
    assert first == running.Instance("api", (EXPECTED,))
    assert running.strays([second], ["job"], EXPECTED)


@pytest.mark.parametrize("text", ["", "notice\n", "{}\n", '[{"service": "api"}]\n'])
def test_an_answer_that_is_not_the_list_is_an_error(text):
    with pytest.raises(RigError):
        running.parse(text)


def test_the_example_has_every_variable_that_the_operator_sets(monkeypatch):
    paths = operator_server.Programs("/srv/shop/bin/pm2", "/srv/shop/bin/node", "/srv/shop/.pm2")
    monkeypatch.setattr(operator_server, "programs", lambda: paths)
    monkeypatch.setattr(images, "registry_reachable", lambda: False)
    tracker = operator_server.Tracker(
        "http://192.0.2.1", "a@example.org", "password", "token", "company", "shop", "7"
    )
    text = (operator_inventory.EXAMPLE / "group_vars/all/main.yml").read_text()
    filled = operator_inventory.fill_in(text, operator_server.answers("0123456789ab", tracker))
    values = yaml.safe_load(filled)
    assert values["product_services"] == operator_server.SERVICES
    assert values["product_modules"] == []
    assert values["glitchtip_port"] == operator_server.PORT
    assert values["docker_daemon_options"]["cgroup-parent"] == "/docker/0123456789ab"
    assert [key for key, value in values.items() if value == "company"]
    # What is not answered stays as the example has it.
    assert set(yaml.safe_load(text)) <= set(values)


def test_an_answer_for_a_variable_that_the_example_lost_is_an_error():
    with pytest.raises(RigError, match="product_color"):
        operator_inventory.fill_in("product_app_dir: /opt/x\n", {"product_color": "red"})


def test_an_answer_replaces_the_whole_value_and_nothing_beside_it():
    text = "names:\n  - one\n  - two\n# names_more: []\n## names: explained\nother: 1\n"
    filled = operator_inventory.fill_in(text, {"names": ["three"], "names_more": {"a": "b\\1"}})
    assert filled == "names: [three]\nnames_more: {a: b\\1}\n## names: explained\nother: 1\n"


def test_every_secret_of_the_example_is_answered_and_no_answer_is_left_over():
    text = (operator_inventory.EXAMPLE / "group_vars/all/vault.example.yml").read_text()
    filled = yaml.safe_load(operator_inventory.secrets(text, {"vault_become_password": "x", ".*token": "y"}))
    assert filled["vault_become_password"] == "x"
    assert "replace-me" not in str(filled)
    with pytest.raises(RigError, match="asks for vault_become_password"):
        operator_inventory.secrets(text, {".*token": "y"})
    with pytest.raises(RigError, match="nothing like vault_color"):
        operator_inventory.secrets(text, {"vault_become_password": "x", ".*token": "y", "vault_color": "z"})


def test_the_host_keeps_the_name_of_the_example():
    text = (operator_inventory.EXAMPLE / "hosts.yml").read_text()
    found = yaml.safe_load(
        operator_inventory.hosts(
            text, {"ansible_host": "192.0.2.20", "ansible_user": "anna", "ansible_port": 1}
        )
    )["all"]["children"]["servers"]
    assert found["hosts"] == {"production": {"ansible_host": "192.0.2.20", "ansible_port": 1}}
    assert found["vars"]["ansible_user"] == "anna"


@pytest.fixture
def clock(monkeypatch):
    """Set this process's time zone."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def test_the_window_is_open_on_the_clock_of_the_server_alone(clock):
    window = parse_window(operator_server.window())
    now = time.time()
    clock(operator_server.ZONE)
    assert window.problem(now) is None
    assert window.problem(now + 5 * 3600) is None
    clock("UTC")
    assert window.problem(now) is not None


def test_a_walk_goes_on_with_the_step_that_is_named():
    assert operator.chosen("") == ["before", "first", "rollback", "second", "uninstall", "third"]
    assert operator.chosen("uninstall") == ["uninstall", "third"]
    with pytest.raises(RigError, match="OPERATOR_FROM=frist"):
        operator.chosen("frist")


def test_an_image_with_stages_is_another_one_when_a_stage_changes(monkeypatch):
    image = images.IMAGES["operator"]
    before = images.tag("operator")
    monkeypatch.setitem(images.IMAGES, "operator", replace(image, stages={"BUILDER": "base"}))
    images.tag.cache_clear()
    try:
        assert images.tag("operator") != before
    finally:
        monkeypatch.undo()
        images.tag.cache_clear()

"""The playbooks configure, export and drift against a server that this machine reaches."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest
import yaml
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables

pytestmark = pytest.mark.parametrize("server", ["5.2"], indirect=True)
HOOK = "https://hooks.example.org/canary-path?token=canary-hook"


@pytest.fixture
def play(server, tmp_path):
    """Run a playbook: (exit code, everything it printed)."""

    def run(name, *options, **variables):
        given = {
            "configuration_hosts": "localhost",
            "configuration_url": server.url,
            "configuration_token": server.token,
            "configuration_python": sys.executable,
            "configuration_export_dir": str(tmp_path),
            "configuration_drift_report": str(tmp_path / "drift.json"),
            **variables,
        }
        file = tmp_path / "given.yml"
        file.touch(0o600)
        file.write_text(json.dumps(given))
        command = [str(ANSIBLE_PLAYBOOK), "-i", "localhost,", "-c", "local"]
        done = subprocess.run(
            [*command, f"playbooks/{name}.yml", "-e", f"@{file}", "--diff", "-v", *options],
            cwd=ROOT,
            env=ansible_variables(ANSIBLE_NOCOLOR="1"),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        printed = done.stdout + done.stderr
        assert server.token not in printed
        assert "canary" not in printed
        return done.returncode, printed

    return run


def desired(name, **more):
    rule = {
        "name": "chat",
        "quantity": 1,
        "timespan_minutes": 5,
        "recipients": [{"type": "webhook", "url": HOOK}],
    }
    project = {"name": "Shop", "teams": ["crew"], "keys": ["production"], "alerts": [rule]}
    return [{"name": name, "teams": ["crew"], "projects": [project], "monitors": [], **more}]


def slug_of(server, name):
    return next(o["slug"] for o in server.client.organizations.list() if o["name"] == name)


def test_the_walk_from_nothing_to_an_export_that_changes_nothing(play, server, name, tmp_path):
    before = len(server.writes())
    code, printed = play("configure", "--check", configuration_organizations=desired(name))
    assert code == 0, printed
    assert f"+ alert 'chat' (organization '{name}', project 'Shop')" in printed
    assert len(server.writes()) == before, "check mode wrote"

    code, printed = play("drift", configuration_organizations=desired(name))
    assert code == 2, printed
    report = json.loads((tmp_path / "drift.json").read_text())
    assert (report["drift"], {change["action"] for change in report["changes"]}) == (True, {"create"})
    assert len(server.writes()) == before, "drift wrote"

    code, printed = play("configure", configuration_organizations=desired(name))
    assert code == 0, printed
    made = len(server.writes())
    code, printed = play("drift", configuration_organizations=desired(name))
    assert code == 0, printed
    assert json.loads((tmp_path / "drift.json").read_text())["drift"] is False

    code, printed = play("export", configuration_export_organizations=[slug_of(server, name)])
    assert code == 0, printed
    state, secrets = tmp_path / "configuration.yml", tmp_path / "configuration-secrets.yml"
    assert "canary" not in state.read_text()
    assert "canary" in secrets.read_text()
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600

    code, printed = play("configure", "-e", f"@{state}", "-e", f"@{secrets}")
    assert code == 0, printed
    assert "changed=0" in printed
    assert "everything is as declared" in printed
    assert len(server.writes()) == made, "applying an export wrote"


def test_drift_tells_what_differs_and_what_is_unmanaged(play, server, name, tmp_path):
    assert play("configure", configuration_organizations=desired(name))[0] == 0
    changed = desired(name)
    changed[0]["projects"][0]["alerts"][0]["quantity"] = 9
    changed[0]["projects"][0]["keys"] = []
    before = len(server.writes())
    code, printed = play("drift", configuration_organizations=changed)
    assert code == 2
    assert "quantity: 1 -> 9" in printed
    assert "1 differences and" in printed
    report = json.loads((tmp_path / "drift.json").read_text())
    assert [change["name"] for change in report["changes"]] == ["chat"]
    assert ("key", "production") in {(thing["kind"], thing["name"]) for thing in report["unmanaged"]}
    assert len(server.writes()) == before


def test_names_on_the_server_cannot_run_anything_here(play, server, name, tmp_path):
    mark = tmp_path / "ran"
    hostile = name + " {{ lookup('pipe', 'touch " + str(mark) + "') }}"
    client = server.client
    made = client.organizations.create(hostile)
    client.teams.create(made["slug"], "crew")
    client.projects.create(made["slug"], "crew", name="{{ 1 + 1 }}")
    assert play("export", configuration_export_organizations=[made["slug"]])[0] == 0
    state = tmp_path / "configuration.yml"
    code, printed = play("configure", "-e", f"@{state}", "-e", f"@{tmp_path / 'configuration-secrets.yml'}")
    assert code == 0, printed
    assert "everything is as declared" in printed
    assert not mark.exists()
    text = yaml.load(state.read_text().replace("!unsafe", ""), Loader=yaml.SafeLoader)
    assert text["configuration_organizations"][0]["projects"][0]["name"] == "{{ 1 + 1 }}"


NAMES = ("{{ 1 + 1 }}", "Заказы 🚀", "#jinja2: block_start_string:'[%'\n[% raw %}", "a: {# b #}")


def test_awkward_names_and_doubles_survive_the_way_over_files_to_an_empty_server(play, server, name, tmp_path):
    client = server.client
    org = f"{name} {NAMES[0]}"
    slug = client.organizations.create(org)["slug"]
    client.teams.create(slug, "crew")
    for text in (*NAMES, "Shop", "Shop"):
        project = client.projects.create(slug, "crew", name=text)
        client.keys.create(slug, project["slug"], name=text)
        rule = {"name": text, "quantity": 1, "timespanMinutes": 5, "alertRecipients": [{"recipientType": "email"}]}
        client.alerts.create(slug, project["slug"], rule)
        client.alerts.create(slug, project["slug"], {**rule, "name": "silent", "alertRecipients": []})
        client.alerts.create(slug, project["slug"], {**rule, "name": ""})
        monitor = {"name": f"{text} of {project['slug']}", "url": "", "project": project["id"], "interval": 300}
        client.monitors.create(
            slug,
            {**monitor, "monitorType": "Heartbeat", "expectedStatus": None, "expectedBody": "", "timeout": None},
        )
    assert play("export", configuration_export_organizations=[slug])[0] == 0
    files = ["-e", f"@{tmp_path / 'configuration.yml'}", "-e", f"@{tmp_path / 'configuration-secrets.yml'}"]
    everything = {"configuration_purge": ["team", "member", "project", "key", "alert", "monitor"]}
    before = len(server.writes())
    code, printed = play("configure", *files, **everything)
    assert (code, "everything is as declared" in printed) == (0, True), printed
    assert len(server.writes()) == before, "the purge took what was left out"

    client.organizations.delete(slug)
    code, printed = play("configure", *files)
    assert code == 0, printed
    code, printed = play("drift", *files, **everything)
    assert code == 0, printed
    (again,) = [one["slug"] for one in client.organizations.list() if one["name"] == org]
    found = client.projects.list(again)
    assert sorted(project["name"] for project in found) == sorted((*NAMES, "Shop", "Shop"))
    for project in found:
        rules = {rule["name"] for rule in client.alerts.list(again, project["slug"])}
        assert rules == {project["name"], "silent"}  # the one without a name cannot be declared
        assert project["name"] in {key["name"] for key in client.keys.list(again, project["slug"])}
    assert {monitor["projectID"] for monitor in client.monitors.list(again)} == {one["id"] for one in found}


def test_without_a_token_it_says_where_one_comes_from(play):
    code, printed = play("configure", configuration_token="", configuration_token_path="/nonexistent/token")
    assert code == 2
    assert (
        "No API token: give configuration_token (from a vault), or run phase 2 on localhost first"
        in " ".join(printed.split())
    )


@pytest.mark.parametrize("playbook", ["export", "drift", "configure"])
def test_the_token_that_phase_2_keeps_goes_to_no_other_address(play, server, tmp_path, playbook):
    """A port that was changed in the inventory alone: something else may listen there."""
    (tmp_path / ".provisioning-token").write_text(server.token)
    (tmp_path / ".provisioning-urls").write_text("http://127.0.0.1:8080\nhttps://glitchtip.example.org/\n")
    kept = {"configuration_token": "", "configuration_token_path": str(tmp_path / ".provisioning-token")}
    before = len(server.lines())
    code, printed = play(playbook, **kept)
    assert code == 2
    assert (
        f"is for GlitchTip at http://127.0.0.1:8080 or https://glitchtip.example.org/, configuration_url is {server.url}."
        in " ".join(printed.split())
    )
    assert len(server.lines()) == before


@pytest.mark.parametrize("line", [0, 1])
def test_the_token_that_phase_2_keeps_goes_to_either_address_that_it_is_for(play, server, tmp_path, line):
    (tmp_path / ".provisioning-token").write_text(server.token)
    urls = ["http://127.0.0.1:8080", "http://127.0.0.1:8080"]
    urls[line] = f"{server.url}/"
    (tmp_path / ".provisioning-urls").write_text("\n".join(urls) + "\n")
    kept = {"configuration_token": "", "configuration_token_path": str(tmp_path / ".provisioning-token")}
    assert play("export", **kept)[0] == 0

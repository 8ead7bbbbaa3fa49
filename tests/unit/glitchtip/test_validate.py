"""What the role says where a host is too small: the advice must be possible."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from drills.role_stack import load_plugins, trusted
from sizing import MIN_BACKLOG, glitchtip_sizing

ROLE = Path(__file__).resolve().parents[3] / "roles/glitchtip"
load_plugins()


def refusal(total_mib, **variables):
    """The message for a host with this much memory; "" where the role goes on."""
    known = {"__glitchtip_capacity": {"memory": {"total_mib": total_mib}}}
    for part in ("defaults", "vars"):
        known |= yaml.safe_load((ROLE / part / "main.yml").read_text(encoding="utf-8"))
    tasks = yaml.safe_load((ROLE / "tasks/validate.yml").read_text(encoding="utf-8"))
    task = next(each for each in tasks if "required_mib" in str(each.get("ansible.builtin.assert", "")))
    templar = Templar(loader=DataLoader(), variables=trusted({**known, **task["vars"], **variables}))
    arguments = task["ansible.builtin.assert"]
    if templar.template(trust_as_template("{{ " + arguments["that"] + " }}")):
        return ""
    return str(templar.template(trust_as_template(arguments["fail_msg"])))


@pytest.mark.parametrize("total", [100, 380, 386, 387, 500, 600, 614, 615, 1900, 8000])
@pytest.mark.parametrize("events", [1000, 20_000, 200_000])
def test_the_backlog_that_is_proposed_is_accepted(total, events):
    said = refusal(total, glitchtip_backlog_events=events)
    fits = glitchtip_sizing("5.2.0", backlog_events=events)["required_mib"] <= total
    assert bool(said) is not fits
    proposed = re.search(r"at most (\d+)", said)
    if proposed:
        assert int(proposed[1]) >= MIN_BACKLOG
        assert not refusal(total, glitchtip_backlog_events=int(proposed[1]))
    elif said:
        assert "more memory" in said
        assert refusal(total, glitchtip_backlog_events=MIN_BACKLOG)


GOOD = {"glitchtip_public_url": "https://errors.example.org", "glitchtip_superuser_email": "admin@example.org"}


def refusals(**variables):
    """The sentences of the role for these variables."""
    known = {}
    for part in ("defaults", "vars"):
        known |= yaml.safe_load((ROLE / part / "main.yml").read_text(encoding="utf-8"))
    templar = Templar(loader=DataLoader(), variables=trusted({**known, **GOOD, **variables}))
    return templar.template(trust_as_template("{{ __glitchtip_refusals }}"))


@pytest.mark.parametrize("version", ["5.2.0", "v5.2.1", "6.1.7", "6.9.0", "5.1.0"])
def test_versions_that_work(version):
    assert refusals(glitchtip_version=version) == []


@pytest.mark.parametrize("version", ["4.0.0", "6.0.0", "6.1.6", "7.0.0", "5.2", "latest", "", "5.2.0-rc1"])
def test_versions_that_do_not(version):
    (told,) = refusals(glitchtip_version=version)
    assert told.startswith(f"glitchtip_version ({version}) is not supported")


@pytest.mark.parametrize(
    "wrong",
    [
        {"glitchtip_process_model": "all_in_one"},
        {"glitchtip_partition_hash_buckets": 0},
        {"glitchtip_public_url": "errors.example.org"},
        {"glitchtip_ingest_url": "http://192.0.2.1:8080"},
        {"glitchtip_superuser_email": "admin@example.test"},
        {"glitchtip_superuser_email": "admin"},
    ],
)
def test_each_wrong_variable_has_a_sentence_and_together_they_have_all(wrong):
    ((name, value),) = wrong.items()
    (told,) = refusals(**wrong)
    assert told.startswith(f"{name} ({value}) ")
    both = refusals(**wrong, glitchtip_version="4.0.0")
    assert len(both) == 2


def test_a_limit_of_processes_that_is_too_small_is_refused():
    assert refusals(glitchtip_pids_limit=64) == []
    (said,) = refusals(glitchtip_pids_limit=63)
    assert "glitchtip_pids_limit (63) must be at least 64" in said


def test_every_image_of_the_stack_can_be_pinned():
    """What each image is expected to be reaches the module that compares it."""
    tasks = yaml.safe_load((ROLE / "tasks/install.yml").read_text(encoding="utf-8"))
    images = next(task["image_digests"]["images"] for task in tasks if "image_digests" in task)
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    for entry in images.values():
        # What phase 1 tested comes after what the operator wants.
        name = entry["expected"].strip("{} ").partition(" | default(")[0]
        assert defaults[name] == ""
        assert name == f"{entry['reference'].split('}}')[0].strip('{ ')}_digest"

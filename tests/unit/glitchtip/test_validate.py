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

"""Phase 2 deploys the image that phase 1 tested: the sentence about another one, and where the playbooks ask."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tested_image import untested_image

ROOT = Path(__file__).resolve().parents[3]
ONE, TWO = ("sha256:" + digit * 64 for digit in "12")
REFERENCE = "registry.example.org/glitchtip:6.2.6"
TESTED = {"image": REFERENCE, "digest": ONE}


@pytest.mark.parametrize(
    ("evidence", "digest"),
    [(TESTED, ONE), (TESTED, ""), ({"image": REFERENCE}, ONE), ({"image": REFERENCE, "digest": ""}, ONE)],
    ids=["the same", "not on the host", "evidence without a digest", "an empty digest"],
)
def test_the_image_that_was_tested_is_no_problem(evidence, digest):
    assert untested_image(evidence, REFERENCE, digest) == ""


@pytest.mark.parametrize(
    ("evidence", "reference", "words"),
    [
        (TESTED, REFERENCE, [ONE, TWO, REFERENCE]),
        (TESTED, REFERENCE.replace("6.2.6", "6.2.7"), [REFERENCE, "would deploy registry.example.org/glitchtip:6.2.7"]),
        (TESTED, REFERENCE.replace("registry", "mirror"), ["would deploy mirror.example.org/glitchtip:6.2.6"]),
        ({}, REFERENCE, ["does not say which image was tested"]),
    ],
    ids=["digest", "tag", "repository", "no image"],
)
def test_another_image_is_a_problem_that_names_both(evidence, reference, words):
    told = untested_image(evidence, reference, TWO)
    assert all(word in told for word in words)


def test_phase_2_asks_right_behind_the_gate_and_phase_1_records_the_digest():
    (deploy, *_) = yaml.safe_load((ROOT / "playbooks/phase2_deploy.yml").read_text(encoding="utf-8"))
    imports = [task.get("ansible.builtin.import_tasks") for task in deploy["tasks"]]
    assert imports[:2] == ["tasks/gate.yml", "tasks/tested_image.yml"]
    (play,) = yaml.safe_load((ROOT / "playbooks/phase1_local_test.yml").read_text(encoding="utf-8"))
    assert "image_digest" in play["tasks"][-1]["migration_evidence"]["data"]["digest"]

"""Which GlitchTip the rig walks: GLITCHTIP_IMAGE and GLITCHTIP_VERSION."""

from __future__ import annotations

import pytest
from rig.shell import RigError
from rig.subject import Subject, parse


def test_without_variables_nothing_is_given():
    assert parse({}) is None
    assert parse({"GLITCHTIP_IMAGE": "", "GLITCHTIP_VERSION": ""}) is None


@pytest.mark.parametrize(
    ("version", "line"), [("5.2.0", "5.2"), ("v5.1.3", "5.2"), ("6.2.6", "6.2"), ("6.1.7", "6.2")]
)
def test_an_image_and_a_full_version_give_a_subject_of_its_line(version, line):
    found = parse({"GLITCHTIP_IMAGE": "local/glitchtip:x", "GLITCHTIP_VERSION": version})
    assert found == Subject("local/glitchtip:x", version, line, given=True)
    assert found.name == "local/glitchtip:x"


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"GLITCHTIP_IMAGE": "a:b"}, "GLITCHTIP_VERSION is missing"),
        ({"GLITCHTIP_VERSION": "5.2.0"}, "GLITCHTIP_IMAGE is missing"),
        ({"GLITCHTIP_IMAGE": "a:b", "GLITCHTIP_VERSION": "latest"}, "GLITCHTIP_VERSION=latest"),
        ({"GLITCHTIP_IMAGE": "a:b", "GLITCHTIP_VERSION": "5.2"}, "GLITCHTIP_VERSION=5.2"),
        ({"GLITCHTIP_IMAGE": "a:b", "GLITCHTIP_VERSION": "4.0.1"}, "GLITCHTIP_VERSION=4.0.1"),
        ({"GLITCHTIP_IMAGE": "a:b", "GLITCHTIP_VERSION": "0.0.0"}, "GLITCHTIP_VERSION=0.0.0"),
    ],
)
def test_half_of_it_or_no_full_known_version_is_one_clear_message(environment, named):
    with pytest.raises(RigError, match=named):
        parse(environment)

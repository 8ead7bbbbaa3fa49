"""What ``ansible-doc`` says of our host modules is what they take."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import pytest
import yaml
from ansible.module_utils import basic

LIBRARY = Path(__file__).resolve().parents[3] / "library"
#: The modules about GlitchTip have conventions of their own: tests/unit/modules/test_conventions.py.
MODULES = sorted(path.stem for path in LIBRARY.glob("*.py") if not path.stem.startswith("glitchtip_"))


class CapturedError(Exception):
    """Carries the arguments with which AnsibleModule was made."""


@pytest.fixture
def specification(monkeypatch):
    def of(name):
        module = importlib.import_module(name)

        def capture(**arguments):
            raise CapturedError(arguments)

        monkeypatch.setattr(module, "AnsibleModule", capture)
        with pytest.raises(CapturedError) as captured:
            module.main()
        return captured.value.args[0]

    return of


def as_specified(documented):
    """Documented options as AnsibleModule takes them; what keeps a value out of logs is not documented."""
    for entry in documented.values():
        assert entry.pop("description")
        if suboptions := entry.pop("suboptions", None):
            entry["options"] = as_specified(suboptions)
    return documented


def without_no_log(options):
    for entry in options.values():
        entry.pop("no_log", None)
        without_no_log(entry.get("options", {}))
    return options


@pytest.mark.parametrize("name", MODULES)
def test_documented_options_are_the_real_ones(specification, name):
    documented = yaml.safe_load(importlib.import_module(name).DOCUMENTATION)["options"]
    real = copy.deepcopy(specification(name)["argument_spec"])
    assert as_specified(documented) == without_no_log(real)


@pytest.mark.parametrize("name", MODULES)
def test_they_work_in_check_mode_and_say_so(specification, name):
    documentation = yaml.safe_load(importlib.import_module(name).DOCUMENTATION)
    assert specification(name)["supports_check_mode"] is True
    assert documentation["attributes"]["check_mode"]["support"] == "full"


@pytest.mark.parametrize("name", MODULES)
def test_examples_use_options_that_exist(name):
    module = importlib.import_module(name)
    known = set(yaml.safe_load(module.DOCUMENTATION)["options"])
    for task in yaml.safe_load(module.EXAMPLES):
        assert set(task[name]) <= known


def test_the_capture_sees_a_real_module():
    assert basic.AnsibleModule is importlib.import_module("host_capacity").AnsibleModule

"""Runs the modules of ``library/`` inside the test's process."""

from __future__ import annotations

import importlib

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args


class ModuleEndError(Exception):
    """Carries what the module gave to exit_json or fail_json."""

    def __init__(self, result):
        super().__init__(str(result))
        self.result = result


@pytest.fixture
def run_host_module(monkeypatch):
    """run_host_module(name, check=False, **options) -> result with ``failed`` and ``changed``."""

    def run(name, check=False, **options):
        def exit_json(_self, **result):
            raise ModuleEndError({"changed": False, **result, "failed": False})

        def fail_json(_self, msg, **result):
            raise ModuleEndError({"changed": False, **result, "msg": msg, "failed": True})

        monkeypatch.setattr(basic.AnsibleModule, "exit_json", exit_json)
        monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail_json)
        module = importlib.import_module(name)
        arguments = {**options, "_ansible_check_mode": check, "_ansible_remote_tmp": "/tmp"}
        with patch_module_args(arguments), pytest.raises(ModuleEndError) as ended:
            module.main()
        return ended.value.result

    return run

"""The runner of Ansible's modules, as for the other host modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location("host_conftest", Path(__file__).parents[1] / "host" / "conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_HOST = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_HOST)
run_host_module = _HOST.run_host_module

"""Build the cutover's program from the repository's sources and copy it to the host.

The bytes depend on the sources alone, so that a repeat changes nothing; check mode works as in ``copy``.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PACKAGE = Path(__file__).resolve().parents[3] / "src" / "glitchtip_cutover"


class ActionModule(ActionBase):
    """``cutover_zipapp: {dest, mode, places}``; owner and group are root. ``places``: see ``glitchtip_cutover.bundle``."""

    TRANSFERS_FILES = True
    _VALID_ARGS = frozenset({"dest", "mode", "places"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Build into a temporary file of the controller and hand that to ``ansible.builtin.copy``."""
        super().run(tmp, task_vars)
        directory = Path(tempfile.mkdtemp(prefix="cutover-"))
        try:
            program = directory / "ai-admin-cutover.pyz"
            program.write_bytes(self._bundle(self._task.args.get("places") or {}))
            task = self._task.copy()
            task.args = {
                "src": str(program),
                "dest": self._task.args["dest"],
                "mode": self._task.args.get("mode", "0755"),
                "owner": "root",
                "group": "root",
            }
            task.diff = False
            copy = self._shared_loader_obj.action_loader.get(
                "ansible.builtin.copy",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            )
            result: dict[str, Any] = copy.run(task_vars=task_vars)
            result.pop("invocation", None)
            return result
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @staticmethod
    def _bundle(places: dict[str, Any]) -> bytes:
        """The program's bytes, by the package's own builder."""
        spec = importlib.util.spec_from_file_location("cutover_bundle", PACKAGE / "bundle.py")
        if spec is None or spec.loader is None or not PACKAGE.is_dir():
            raise AnsibleActionFail(f"the cutover's sources are not at {PACKAGE}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        data: bytes = module.bundle(PACKAGE, {name: str(value) for name, value in places.items()})
        return data

"""Standard output of the walk: one line for each thing that is done, progress while a long one runs, and totals as JSON for the table."""

from __future__ import annotations

DOCUMENTATION = """
name: lines
type: stdout
short_description: One line a thing
description:
  - Prints a line for each task that changed something, failed, or took longer than five seconds, and one every fifteen seconds while a task runs.
  - Writes totals to the file named by the environment variable RIG_TOTALS.
"""

import json
import os
import threading
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

SLOW = 5.0
TICK = 15.0


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Counts results and prints lines."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "lines"

    def __init__(self) -> None:
        super().__init__()
        self.label = os.environ.get("RIG_LABEL", "play")
        self.began = time.monotonic()
        self.task_began = self.began
        self.task_name = ""
        self.tasks = 0
        self.changed: list[str] = []
        self.ticker: threading.Timer | None = None

    def _line(self, text: str) -> None:
        self._display.display(f"  {self.label} {time.monotonic() - self.began:6.1f} s  {text}")

    def _tick(self) -> None:
        self._line(f"... {self.task_name} ({time.monotonic() - self.task_began:.0f} s so far)")
        self._arm()

    def _arm(self) -> None:
        self.ticker = threading.Timer(TICK, self._tick)
        self.ticker.daemon = True
        self.ticker.start()

    def _disarm(self) -> None:
        if self.ticker:
            self.ticker.cancel()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Remember when it began."""
        self._disarm()
        self.task_began = time.monotonic()
        self.task_name = task.get_name().strip()
        self._arm()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Handlers count as tasks."""
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count; print what changed, what was slow, and what a debug task says."""
        self.tasks += 1
        seconds = time.monotonic() - self.task_began
        if result._result.get("changed"):
            self.changed.append(self.task_name)
            self._line(f"changed  {self.task_name}")
            if self._display.verbosity or os.environ.get("RIG_DIFF"):
                self._print_diff(result)
        elif result._task.action in {"debug", "ansible.builtin.debug"} and "msg" in result._result:
            self._line(f"says     {result._result['msg']}")
        elif seconds > SLOW:
            self._line(f"ok       {self.task_name} ({seconds:.1f} s)")

    def _print_diff(self, result: Any) -> None:
        diff = result._result.get("diff")
        if diff and not result._task.no_log:
            self._display.display(self._get_diff(diff))

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Skipped tasks did nothing."""

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Print the reason, unless the task keeps it secret."""
        self.tasks += 1
        hidden = result._task.no_log or "censored" in result._result
        reason = (
            "(output hidden: it may hold secrets)"
            if hidden
            else str(result._result.get("msg") or result._result.get("stderr") or "")
        )
        self._line(f"FAILED   {self.task_name}: {reason}")
        if not hidden:
            for key in ("stderr", "stdout"):
                for line in str(result._result.get(key) or "").strip().splitlines()[-6:]:
                    self._line(f"         {line}")

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Print the reason of one item of a loop, unless the task keeps it secret."""
        if not (result._task.no_log or "censored" in result._result):
            self._line(
                f"         {self._get_item_label(result._result)}: {result._result.get('msg') or result._result.get('stderr')}"
            )

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Print that the host does not answer."""
        self._line(f"UNREACHABLE {result._host.get_name()}: {result._result.get('msg', '')}")

    def v2_runner_retry(self, result: Any) -> None:
        """Retries show through the ticking line."""

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Recap in one line a host, totals as JSON."""
        self._disarm()
        hosts = {host: stats.summarize(host) for host in stats.processed}
        for host, totals in hosts.items():
            self._line(
                f"recap    {host}: "
                + " ".join(f"{key}={value}" for key, value in totals.items() if value or key == "changed")
            )
        if path := os.environ.get("RIG_TOTALS"):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(
                    {
                        "tasks": self.tasks,
                        "changed": sum(t["changed"] for t in hosts.values()),
                        "changed_tasks": self.changed,
                        "hosts": hosts,
                    },
                    file,
                )

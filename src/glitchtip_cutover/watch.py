"""The first hour after a switch: looks again and again, and takes the switch back when something is wrong.

It is a unit of its own (``ai-admin-cutover-watch.service``): it begins when a switch is confirmed, goes on after
a reboot, and ends by itself, by ``systemctl stop``, or when somebody rolls back by hand. What takes a switch back:
test events that are not read back, services that do not start or crash, containers of the new tracker that crash,
memory that runs out. It never holds the lock of the switch while it looks or waits.

The hour is measured: it is the sum of the time in which the watch really ran and saw the services, on the monotonic
clock. A clock that is set, a reboot or a suspended machine does not shorten it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from glitchtip_core.clock import WatchedTime
from glitchtip_core.files import read_json
from glitchtip_core.json_text import decode_json
from glitchtip_core.memory import Memory, read_memory
from glitchtip_core.process import run, search_path
from glitchtip_core.transaction.containment import contain, contain_port
from glitchtip_core.transaction.detached import has_systemd
from glitchtip_core.transaction.state import State

from .config import Config
from .containment import contain_host
from .deadline import WATCH_UNIT, run_detached
from .engine import Docker
from .errors import (
    BusyError,
    CutoverError,
    IncompleteError,
    InterruptedRunError,
    RolledBackError,
    UnrecordedError,
    unexpected,
)
from .host import Host
from .proof import is_own
from .switching import transaction_of
from .watch_checks import Checks
from .watch_drift import DriftCheck
from .watch_mark import WatchMark, read_mark, remove_mark, write_mark

Result = dict[str, Any]

_LOCK_WAIT = 60.0
# So often in a row the state may be unreadable before the watch gives up, and systemd starts it again.
_BLIND = 5
# A watch that could not check enough ends after so many times its length.
_AT_MOST = 2


def start_watch(config: Config, facts: Mapping[str, Any]) -> None:
    """Leave the mark and start the unit; nothing when no watch is configured or the mirror was entered.

    ``facts`` tells ``attempt``, ``stands`` and ``confirmed_at``. The unit starts at the next boot where systemd cannot be asked.
    """
    if not config.watch.seconds or facts.get("stands", "glitchtip") != "glitchtip":
        return
    write_mark(config, WatchMark(attempt=facts["attempt"], began=float(facts["confirmed_at"])))
    if has_systemd():
        with contextlib.suppress(CutoverError):
            run(
                ["systemctl", "start", "--no-block", WATCH_UNIT + ".service"],
                environment={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
                timeout=30,
            )


def systemd_stops() -> bool:
    """Whether the machine is going down, so that the watch has to go on after it."""
    if not has_systemd():
        return False
    with contextlib.suppress(CutoverError):
        done = run(
            ["systemctl", "is-system-running"],
            environment={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
            timeout=30,
        )
        return done.output.strip() == "stopping"
    return False


def roll_back_detached(config: Config, reason: str) -> tuple[int, str]:
    """The ordinary rollback as its own unit; its exit code and its sentence."""
    code, text = run_detached(config, "rollback", [f"--reason={reason}"])
    return code, text.decode(errors="replace")


class _UnwatchedError(IncompleteError):
    """The watch ends, and could not see enough to say that all is well."""


class Watch:
    """One watch. What it asks and does is given, so that tests can put their own there."""

    def __init__(
        self,
        config: Config,
        host: Host,
        *,
        docker: Docker | None = None,
        memory: Callable[[], Memory] = read_memory,
        roll_back: Callable[[Config, str], tuple[int, str]] = roll_back_detached,
        going_down: Callable[[], bool] = systemd_stops,
    ) -> None:
        self.config = config
        host = self.host = contain_host(host)
        self.change = transaction_of(config, host)
        self.store, self.books = self.change.store, self.change.books
        self.docker = contain_port(docker or Docker(config.compose.docker), "Docker")
        self.drift = DriftCheck(config, host, self._state, self._record)
        self.checks = Checks(
            config,
            host,
            self.docker,
            self.drift,
            contain(memory, "reading the memory"),
            note=self._note,
            alert=self._alert,
        )
        self._roll_back = contain(roll_back, "the rollback")
        self._going_down = contain(going_down, "systemd")

    # ------------------------------------------------------------------ the run

    def run(self) -> Result:
        """Look until the time is over. Raises RolledBackError when a trigger took the switch back.

        IncompleteError: the mark of the watch is damaged, and it ends. Any other CutoverError: it could not go on;
        systemd starts it again. People are notified of both.
        """
        try:
            mark = read_mark(self.config)
        except CutoverError as error:
            reason = f"the watch after the switch cannot begin: {error}"
            self._alert(reason)
            if not isinstance(error.__cause__, ValueError | type(None)):
                raise CutoverError(reason) from error  # it cannot be read now: systemd starts the watch again
            with contextlib.suppress(Exception):
                self._forget()
            raise IncompleteError(reason) from error
        if mark is None:
            return {"changed": False, "state": "not watching", "reason": "no switch was confirmed lately"}
        try:
            return self._watch(mark)
        except (RolledBackError, BusyError, UnrecordedError, _UnwatchedError):
            raise
        except InterruptedRunError:
            if self._going_down():
                return {
                    "changed": False,
                    "state": "paused",
                    "reason": "the machine goes down; it goes on after",
                }
            self._record("watch_stopped", attempt=mark.attempt)
            self._forget()
            return {"changed": True, "state": "stopped", "reason": "the watch was stopped by hand"}
        except Exception as error:
            reason = f"the watch after the switch could not go on: {unexpected(error)}"
            if not mark.alerted:
                self._alert(reason)
                mark.alerted = True
                self._keep(mark)
            raise CutoverError(reason) from error

    def _alert(self, reason: str) -> None:
        """Notify people that the watch does not see what it should."""
        self.host.progress(reason)
        for problem in self.host.notify("incomplete", {"reason": reason, "problems": [reason]}):
            self.host.progress(problem)

    def _watch(self, mark: WatchMark) -> Result:
        if not mark.begun:
            self._record(
                "watch_begin",
                attempt=mark.attempt,
                seconds=self.config.watch.seconds,
                interval=self.config.watch.interval,
            )
            mark.begun = True
            self._keep(mark)
        watched = WatchedTime(self.host.monotonic, self._longest, mark.watched)
        spent = WatchedTime(self.host.monotonic, self._longest)
        blind = 0
        while True:
            try:
                if not self._stands(mark):
                    self._forget()
                    return {"changed": True, "state": "over", "reason": "the switch it watched is not active any more"}
            except (InterruptedRunError, BusyError):
                raise
            except Exception as error:
                blind += 1
                if blind >= _BLIND:
                    raise
                self.host.progress(f"the state cannot be read: {unexpected(error)}")
                self.host.sleep(self.config.watch.interval)
                watched.skip()
                continue
            if mark.watched >= self.config.watch.seconds and mark.checks >= self._fewest:
                return self._passed(mark)
            if spent.seconds >= _AT_MOST * self.config.watch.seconds:
                self._end_unwatched(mark)
            blind = 0
            reason = self.look()
            if reason is not None and self._stands(mark) and self._alarm(mark, reason):
                raise RolledBackError(f"{reason}; the switch was taken back", {"state": "rolled_back"})
            left = self.config.watch.seconds - mark.watched
            self.host.sleep(min(self.config.watch.interval, max(left, 0.1)))
            spent.tick()
            if self.checks.is_complete:
                mark.watched, mark.checks = watched.tick(), mark.checks + 1
            else:
                watched.skip()
            self._keep(mark)

    @property
    def _longest(self) -> float:
        """Seconds that one check with its pause counts at most."""
        return 2 * self.config.watch.interval + self.config.probe_wait

    @property
    def _fewest(self) -> int:
        """So many checks a watch needs at least to pass."""
        return max(1, math.ceil(self.config.watch.seconds / self._longest))

    def look(self) -> str | None:
        """Check everything once; the reason to take the switch back, None when there is none."""
        return self.checks.look()

    def _state(self) -> State:
        return self.change.state()

    def _stands(self, mark: WatchMark) -> bool:
        state = self._state()
        return state.phase == "confirmed" and state.attempt == mark.attempt

    def _passed(self, mark: WatchMark) -> Result:
        silent = self._silent(mark.began)
        facts = {"attempt": mark.attempt, "looks": mark.checks, "silent": silent, "drift": self.drift.open}
        self._record("watch_passed", **facts)
        self._forget()
        problems = self.host.notify("watch_passed", facts)
        if self.books.problems:
            raise UnrecordedError(
                f"the watch passed, but its record is incomplete: {self.books.problems[0]}",
                {**facts, "problems": self.books.problems},
            )
        return {"changed": True, "state": "passed", **facts, "problems": list(problems)}

    def _end_unwatched(self, mark: WatchMark) -> None:
        """End a watch that could not see enough: it neither passes nor takes anything back. Raises IncompleteError."""
        reason = (
            f"the watch after the switch ends without a result: {mark.checks} checks in {mark.watched:.0f} s could see the "
            f"services, and {self._fewest} checks in {self.config.watch.seconds:g} s are needed; check the services yourself"
        )
        self._record("watch_stopped", attempt=mark.attempt, reason=reason)
        self._forget()
        self._alert(reason)
        raise _UnwatchedError(reason)

    def _alarm(self, mark: WatchMark, reason: str) -> bool:
        """Take the switch back; False when another run is under way and the next check has to decide.

        A record that cannot be written does not keep the rollback back.
        """
        self.host.progress(f"taking the switch back: {reason}")
        try:
            self._record("watch_alarm", attempt=mark.attempt, reason=reason)
        except BusyError:
            return False
        telling = threading.Thread(
            target=self.host.notify, args=("watch_alarm", {"reason": reason}), daemon=True
        )
        telling.start()
        try:
            code, text = self._roll_back(self.config, f"first-hour watch: {reason}")
        except BusyError:
            return False
        finally:
            telling.join(10.0)
        self.host.progress(f"the rollback ended with code {code}")
        if code in (0, 5):
            self._forget()
            return True
        if code == 75:
            return False
        if code == IncompleteError.exit_code and _is_restored(text):
            self._forget()
            raise UnrecordedError(f"{reason}; the switch was taken back, but its record is incomplete", {"state": "rolled_back"})
        raise CutoverError(f"{reason}; and the rollback ended with code {code}: {text[:300].strip()}")

    def _record(self, event: str, **facts: Any) -> None:
        """One record, with the lock held for as long as that takes. Raises BusyError; what fails otherwise stops nothing."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.store.lock(wait=_LOCK_WAIT))
            except (BusyError, InterruptedRunError):
                raise
            except CutoverError as error:
                self.books.add(str(error))
            self.books.record(event, **facts)

    def _keep(self, mark: WatchMark) -> None:
        """Keep how far the watch is. Where that fails, a watch that is started again begins where it was kept last."""
        with contextlib.suppress(CutoverError):
            write_mark(self.config, mark)

    def _forget(self) -> None:
        try:
            remove_mark(self.config)
        except OSError as error:
            self.books.add(f"the mark of the watch cannot be removed: {error.strerror}")

    def _note(self, sentence: str) -> None:
        self.host.progress(sentence)
        with contextlib.suppress(BusyError):
            self._record("watch_note", note=sentence)

    def _silent(self, began: float) -> list[str]:
        """Services that reported by themselves when they were switched, and not since the watch began."""
        heard: set[str] = set()
        try:
            applied = read_json(self.config.state_dir / "applied.json")
            rows = applied.get("services", []) if isinstance(applied, dict) else []
            talked = {row.get("name") for row in rows if row.get("proof") == "own_event"}
            if not talked:
                return []
            processes = self.host.manager.processes()
            for side in {self.config.side_for(str(name)) for name in talked if name in self.config.services}:
                if side is not None:
                    events = [event for event in self.host.tracker(side).recent_events() if event.created >= began]
                    heard |= {
                        process.name
                        for process in processes
                        if any(is_own(event, self.config.service_tag, process) for event in events)
                    }
        except InterruptedRunError:
            raise
        except Exception:
            return []
        return sorted(str(name) for name in talked - heard)


def _is_restored(text: str) -> bool:
    """Whether a rollback that ended as incomplete says that only its record is."""
    try:
        document = decode_json(text)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("restored") is True


def run_watch(config: Config, host: Host) -> Result:
    """The command ``watch``."""
    return Watch(config, host).run()

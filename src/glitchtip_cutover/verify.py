"""After a recovery at boot: is every service up again, on exactly the DSN of its ``.env``, and that the active target's?

The recovery mends files before the services' manager starts, so nothing could be looked at then. This comes
after it. It changes nothing; what does not fit is told.
"""

from __future__ import annotations

from typing import Any

from glitchtip_core.dsn import Dsn, parse_dsn

from .config import Config
from .containment import contain_host
from .drift import add_drift, find_drift
from .envfile import EnvFile
from .errors import BusyError, CutoverError, InterruptedRunError, UnprovenServiceError, unexpected
from .host import Host
from .manager import Process, manager_label
from .proof import environment_problem
from .switching import transaction_of

Result = dict[str, Any]

_MANAGER_WAIT = 120.0
_POLL = 2.0


def run_verify(config: Config, host: Host) -> Result:
    """The command ``verify``. Raises CutoverError when a service is not there, not online or on another DSN.

    People are notified of that, and of a verification that could not be made.
    """
    host = contain_host(host)
    try:
        return _run_verify(config, host)
    except _NotVerifiedError as error:
        raise CutoverError(str(error), error.details) from None
    except (BusyError, InterruptedRunError):
        raise
    except Exception as error:
        reason = f"after the recovery the services could not be verified: {unexpected(error)}"
        host.notify("incomplete", {"reason": reason, "problems": [reason]})
        raise CutoverError(reason) from error


class _NotVerifiedError(CutoverError):
    """What does not fit, of which people were notified."""


def _run_verify(config: Config, host: Host) -> Result:
    change = transaction_of(config, host)
    facts = change.store.to_verify()
    listed = _wait(config, host)
    rows: list[Result] = []
    problems: list[str] = []
    state = change.state()
    alone = state.overrides
    for name in config.services:
        instances = [process for process in listed if process.name == name]
        row, found = _look(config, host, name, instances, alone=name in alone)
        rows.append(row)
        problems += found
    result: Result = {
        "changed": facts is not None,
        "state": "verified",
        "services": rows,
        "problems": problems,
    }
    try:
        add_drift(result, *find_drift(config, host, state, listed))
    except CutoverError as error:
        result["problems"] = [*problems, str(error)]
    problems = result["problems"]
    books = change.books
    with change.store.lock(wait=_MANAGER_WAIT):
        books.record("verified", services=len(rows), problems=problems)
        books.unmark_verify()
    result["problems"] = problems = [*problems, *books.problems]
    told = {**(facts or {}), "problems": problems}
    if problems:
        host.notify("incomplete", told)
        raise _NotVerifiedError(
            f"after the recovery {len(problems)} thing(s) do not fit: {problems[0]}",
            {**result, "state": "not verified"},
        )
    if facts is not None and facts.get("event"):
        host.notify(str(facts["event"]), told)
    return result


def _wait(config: Config, host: Host) -> list[Process]:
    """The manager's list once all services run, or what it is when the time is over."""
    deadline = host.monotonic() + _MANAGER_WAIT + config.restart_wait
    listed: list[Process] = []
    while True:
        try:
            if host.manager.running:
                listed = host.manager.processes()
                names = {process.name for process in listed if process.healthy}
                ill = any(not process.healthy for process in listed if process.name in config.services)
                if set(config.services) <= names and not ill:
                    return listed
        except CutoverError as error:
            host.progress(str(error))
        if host.monotonic() >= deadline:
            return listed
        host.sleep(_POLL)


def _look(
    config: Config, host: Host, name: str, instances: list[Process], *, alone: bool = False
) -> tuple[Result, list[str]]:
    """One service's row, and what does not fit. One that was put back ``alone`` may have its DSN from its manager."""
    row: Result = {"name": name, "dsn_host": "-", "status": "gone", "proof": "none", "note": ""}
    if not instances:
        return row, [f"{manager_label(config)} knows no service {name}"]
    row["status"] = ", ".join(sorted({process.status for process in instances}))
    problems = [f"the service {name} is {item.status}, not online" for item in instances if not item.healthy]
    path = config.service(name).env_file
    try:
        value = EnvFile(path, config.env_key).value()
        if alone:
            value = instances[0].environment.get(config.env_key, value)
        expected = parse_dsn(value, f"the value of {config.env_key} in {path}")
    except CutoverError as error:
        return row, [*problems, str(error)]
    row["dsn_host"] = expected.netloc
    if any(process.environment.get(config.env_key) not in (None, value) for process in instances):
        problems.append(f"{name} is given another DSN by {manager_label(config)} than {path} holds")
    try:
        found = [environment_problem(config, process, expected) for process in instances]
        problems += [problem for problem in found if problem]
    except CutoverError as error:
        problems.append(str(error))
    if not problems:
        problems += _probe(host, instances[0], expected, row)
    return row, problems


def _probe(host: Host, process: Process, expected: Dsn, row: Result) -> list[str]:
    """Ask a probe which DSN the service would use; a tracker that cannot be reached is a note, no problem."""
    try:
        status = host.prober.uses(process, expected)
    except UnprovenServiceError as error:  # before the switch it was accepted, or heard itself
        row["note"] = str(error)
        return []
    except CutoverError as error:
        return [str(error)]
    if status is not None and 200 <= status < 300:
        row["proof"] = "probe"
    else:
        row["note"] = f"on {expected.netloc}, which did not take an event now"
    return []

"""GlitchTip fails: its worker, its web server, its token, its keys; or Sentry is out of reach."""

from __future__ import annotations

import time
from collections.abc import Callable

from rig.shell import run

from drills import off
from drills.framework import Case, Control, Drill, docker
from drills.product import NO_PROOF

NO_GATE = Control(
    "no test event before the switch",
    off.patched("applying", "Applying._gate", "Applying._gate = lambda self, *a, **k: None"),
    "apply ended with code 3",
)
NO_CHECK = Control(
    "the new DSN is not looked up first",
    off.patched("plan", "verify_dsn", "verify_dsn = lambda *a, **k: None"),
    "a wrong key was sent",
)


def _sql(case: Case, statement: str) -> None:
    database = f"{case.world.glitchtip.stack.name}-postgres"
    run(
        ["docker", "exec", "-i", database, "psql", "-q", "-U", "glitchtip", "-d", "glitchtip"],
        input_text=statement,
    )


def _half_way(
    breaks: Callable[[Case], None], repairs: Callable[[Case], None], code: int = 3
) -> Callable[[Case], None]:
    """An apply is held at its third restart, GlitchTip is broken, the apply goes on; repaired when it has ended."""

    def drill(case: Case) -> None:
        process, pid = case.at("restart", case.apply, 3)
        try:
            breaks(case)
            case.go_on(pid)
            case.expect_code(case.world.end(process), code, "apply")
        finally:
            repairs(case)

    return drill


def _parts(command: str, *parts: str) -> Callable[[Case], None]:
    return lambda case: docker(command, *case.world.glitchtip.containers(*parts))


def _gate(case: Case) -> None:
    """The worker does not run before the switch begins."""
    case.world.configure(probe_wait=6)
    _parts("pause", "worker")(case)
    before = case.observer.collected()["processes"]
    try:
        case.expect_code(case.world.program("apply --json"), 1, "apply")
    finally:
        _parts("unpause", "worker")(case)
    after = case.observer.collected()["processes"]
    same = all(after[name]["pid"] == entry["pid"] for name, entry in before.items() if not entry["job"])
    case.expect(same, "a service was restarted although nothing could be switched")


def _token(case: Case, command: str) -> None:
    token = case.world.glitchtip.token
    texts = {"revoke": (token, "x" + token[1:]), "restore": ("x" + token[1:], token)}[command]
    _sql(case, f"UPDATE api_tokens_apitoken SET token = '{texts[1]}' WHERE token = '{texts[0]}';")


def _token_before(case: Case) -> None:
    case.world.write("/etc/glitchtip-ops/token", "0" * 64 + "\n")
    case.expect_code(case.world.program("apply --json"), 1, "apply")


NO_PROOF_BACK = Control("nothing is proven on the way back", NO_PROOF.off, "nobody can prove")
#: How long GlitchTip refuses a project after a wrong key (seconds), and a little.
_REFUSED = 32


def _wrong_key(case: Case) -> None:
    """The DSN has a key of no project: found by reading; a key that is tried would make GlitchTip refuse the project for 30 s."""
    side = case.world.glitchtip
    wrong = "0" * len(side.key)
    case.world.write("/etc/glitchtip-ops/dsn", side.dsn.replace(side.key, wrong) + "\n")
    began = case.world.now()
    case.expect_code(case.world.program("apply --json"), 1, "apply")
    log = run(["docker", "logs", "--since", str(int(began)), f"{side.stack.name}-web"], check=False)
    tried = [line for line in (log.stdout + log.stderr).splitlines() if "/envelope/" in line]
    case.expect(not tried, "a wrong key was sent to GlitchTip")
    if tried:
        time.sleep(_REFUSED)


def _no_sentry(case: Case) -> None:
    """Sentry is out of reach when everything goes back: services are put back all the same, unproven."""
    case.applied()
    names = case.world.sentry.containers("web")
    docker("pause", *names)
    try:
        done = case.world.program("rollback --json")
    finally:
        docker("unpause", *names)
    case.expect_code(done, 5, "a rollback that nobody can prove")
    case.expect(
        float(done.document.get("seconds_to_last_restart", 99)) < 60,
        "the way back waited for a tracker that does not answer",
    )


DRILLS = (
    Drill(
        "worker stopped before",
        "GlitchTip's worker does not run: events are accepted, not stored",
        "refused with 1, no restart",
        _gate,
        NO_GATE,
        short=True,
    ),
    Drill(
        "worker stopped during",
        "GlitchTip's worker stops at the third restart",
        "apply fails with 3, back",
        _half_way(_parts("pause", "worker"), _parts("unpause", "worker")),
        NO_PROOF,
    ),
    Drill(
        "GlitchTip stops half way",
        "web server and worker are stopped at the third restart",
        "apply fails with 3, back",
        _half_way(_parts("stop", "web", "worker"), _parts("start", "web", "worker")),
        NO_PROOF,
    ),
    Drill(
        "GlitchTip hangs half way",
        "the web server takes connections and answers nothing",
        "apply fails with 3, back",
        _half_way(_parts("pause", "web"), _parts("unpause", "web")),
        NO_PROOF,
    ),
    Drill(
        "token revoked half way",
        "the host's API token is no longer good at the third restart",
        "apply fails with 3, back",
        _half_way(lambda case: _token(case, "revoke"), lambda case: _token(case, "restore")),
        NO_PROOF,
    ),
    Drill(
        "token expired before", "the host's API token is not good", "refused with 1", _token_before, NO_GATE
    ),
    Drill(
        "key of no project",
        "the new DSN's key was deleted",
        "refused with 1 by a read, no event sent",
        _wrong_key,
        NO_CHECK,
    ),
    Drill(
        "Sentry out of reach",
        "Sentry answers nothing while everything goes back",
        "back, unproven",
        _no_sentry,
        NO_PROOF_BACK,
    ),
)

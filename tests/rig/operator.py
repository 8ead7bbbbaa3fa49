"""`make operator`: phases 0 to 5, rollback, forward again, uninstall, forward again, on a server unlike the demo's.

Debian 12 in German and in another time zone; an SSH user who becomes root with a password; Node.js and PM2 where nvm puts them, run by a
third user; a cluster, ES modules, `npm start`, `env_production`, a job of PM2; GlitchTip on another port while another product listens
on 8080. After every step each service's running SDK client is asked from outside which tracker it has. A service that is recorded as
proven and reports elsewhere is a false proof: the walk goes on, and fails at its end with all of them.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from rig import demo, operator_inventory, running, sentry, walk, world
from rig.operator_server import (
    APP,
    DIRECTORY,
    HOME,
    MIGRATION,
    NAME,
    PORT,
    SERVER,
    SERVICES,
    SOAK,
    TARGET,
    answers,
    connection,
    programs,
)
from rig.shell import RigError, say, wait_for
from rig.trackers import Tracker, settle, tunnel

LEDGER = "/var/lib/shop/ledger.jsonl"
STATE = DIRECTORY / "state.json"
VAULT_PASSWORD = DIRECTORY / "vault-password"


@dataclass
class Walk:
    """What the steps share; it survives in ``state.json``, so that a later run can go on with a further step."""

    sentry: Tracker
    original_dsn: str
    sudo_password: str
    problems: list[str] = field(default_factory=list)
    rows: list[list[object]] = field(default_factory=list)
    known_secrets: dict[str, str] = field(default_factory=dict)
    uninstalled_at: str = ""

    def save(self) -> None:
        """Write the state, readable for its owner only."""
        world.write_private(STATE, json.dumps(asdict(self)))

    @classmethod
    def load(cls) -> Walk:
        """The state of the last run. RigError when there is none."""
        if not STATE.exists():
            raise RigError("There is no server of an earlier run; run `make operator` without OPERATOR_FROM.")
        found = json.loads(STATE.read_text())
        return cls(**{**found, "sentry": Tracker(**found["sentry"])})

    def note(self, step: str, problems: list[str]) -> None:
        """Keep what is wrong and print it; the walk goes on."""
        for problem in problems:
            say(f"operator: WRONG after {step}: {problem}")
            self.problems.append(f"{step}: {problem}")


def up() -> Walk:
    """A fresh server whose product reports to "Sentry", and the inventory for it."""
    world.remove_server(SERVER)
    demo.prepare_surroundings("operator")
    say("server: booting Debian 12, German, in New Zealand's time ...")
    container = world.start_server(SERVER)
    password = secrets.token_urlsafe(18)
    world.inside(["chpasswd"], SERVER, input_text=f"{SERVER.user}:{password}\n")
    tracker, dsn = sentry.provision(f"shop on {NAME}")
    say(world.inside([f"{APP}/provision.sh"], SERVER, input_text=dsn + "\n").strip())
    world.write_private(VAULT_PASSWORD, secrets.token_urlsafe(18) + "\n")
    operator_inventory.write(
        SERVER.inventory,
        answers=answers(container, tracker),
        vault={"vault_become_password": password, ".*token": tracker.token},
        server=connection(),
        password_file=VAULT_PASSWORD,
    )
    known_secrets = {
        "sudo password": password,
        "vault password": VAULT_PASSWORD.read_text().strip(),
        "token of Sentry": tracker.token,
        "key of the original DSN": str(urlsplit(dsn).username),
    }
    found = Walk(tracker, dsn, password, known_secrets=known_secrets)
    found.save()
    return found


def play(state: Walk, name: str, *, check: bool = False, extra: tuple[str, ...] = ()) -> walk.Run:
    """Run a playbook as the operator does; what it prints must show no secret. RigError when it fails."""
    arguments = (f"--vault-password-file={VAULT_PASSWORD}", *extra)
    done = walk.attempt(name, check=check, extra=arguments, server=SERVER)
    shown = [what for what, value in state.known_secrets.items() if value in done.output]
    label = f"{name}{' --check' if check else ''}"
    state.note(label, [f"the output shows a secret: {what}" for what in shown])
    state.rows.append([label, done.seconds, done.tasks, len(done.changed)])
    if done.code:
        raise RigError(f"playbooks/{label} ended with exit code {done.code} (see the lines above).")
    return done


def document(path: str) -> dict[str, Any]:
    """A JSON file of the server, without the envelope of the evidence."""
    found: dict[str, Any] = json.loads(world.inside(["cat", path], SERVER))
    data = found.get("data", found)
    return data if isinstance(data, dict) else found


def ask_services() -> list[running.Instance]:
    """Every process of the product's PM2 with its running SDK clients."""
    return running.instances(SERVER, "shop", programs().home, programs().node, programs().pm2)


def see_services(state: Walk, step: str, dsn: str, recorded: str = "") -> list[running.Instance]:
    """Ask every running SDK client; all must have ``dsn``, and the file ``recorded`` must not claim what is not so."""
    found = ask_services()
    expected = running.Client.of_dsn(dsn)
    wrong = running.strays(found, SERVICES, expected)
    if recorded:
        rows = [row for row in document(recorded)["services"] if row["name"] in SERVICES]
        wrong += running.false_proofs(found, rows, expected)
        unproven = [str(row["name"]) for row in rows if row.get("proof", "") in running.UNPROVEN]
        wrong += [f"{name} is not proven" for name in unproven]
        wrong += [
            f"{name} is not in {recorded}" for name in SERVICES if name not in {row["name"] for row in rows}
        ]
    clients = sum(len(one.clients) for one in found)
    say(f"operator: {step}: {clients} running SDK clients asked, expected {expected}, wrong: {len(wrong)}")
    state.note(step, wrong)
    return found


def new_dsn() -> str:
    """The DSN that GlitchTip gave out."""
    return world.inside(["cat", "/etc/glitchtip-ops/dsn"], SERVER).strip()


#: What the team does at a release: the DSN in the ecosystem file is the one of the settings file.
_DEPLOY = """
set -eu
cd app
dsn=$(sed -n 's/^SENTRY_DSN=//p' config/production.env | tr -d "\\"'")
sed -i "s|SENTRY_DSN: '[^']*'|SENTRY_DSN: '$dsn'|" ecosystem.config.cjs
pm2 reload ecosystem.config.cjs --env production
pm2 save
"""


def deploy() -> None:
    """An ordinary deploy after the edit that the documentation asks for, and after the watch, which takes restarts for a fault."""
    watch = ["sh", "-c", "systemctl is-active -q ai-admin-cutover-watch || echo over"]
    wait_for("The end of the watch", lambda: "over" in world.inside(watch, SERVER), seconds=120, pause=2)
    path = f"{PurePosixPath(programs().node).parent}:/usr/bin:/bin"
    environment = [f"HOME={HOME}", f"PM2_HOME={programs().home}", f"PATH={path}"]
    argv = ["runuser", "-u", "shop", "--", "env", "-i", *environment, "sh", "-c", f"cd ~; {_DEPLOY}"]
    world.inside(argv, SERVER)


def see_decoy(state: Walk, step: str) -> None:
    """The other product on port 8080 must not have been asked anything."""
    asked = world.inside(["sh", "-c", "cat /var/log/decoy.log 2>/dev/null || true"], SERVER).splitlines()
    state.note(
        step,
        [
            f"the other product on port 8080 was asked: {line} ({asked.count(line)} times)"
            for line in dict.fromkeys(asked)
        ],
    )
    world.inside(["rm", "-f", "/var/log/decoy.log"], SERVER)


def events(state: Walk, step: str) -> None:
    """What the product captured since the last uninstall is stored, and once."""
    since = datetime.fromisoformat(state.uninstalled_at or "1970-01-01T00:00:00+00:00")
    entries = demo.ledger(SERVER, LEDGER)
    captured = {name for name, entry in entries.captured.items() if entry.at > since}
    acknowledged = {name for name, entry in entries.acknowledged.items() if name in captured}
    with tunnel(SERVER, PORT) as url:
        counted = settle(captured, acknowledged, state.sentry, demo.glitchtip_tracker(url, SERVER))
    demo.table(f"Events {step}", list(counted), [list(counted.values())])
    if counted["lost"] or counted["duplicated"] or not counted["glitchtip"]:
        state.note(
            step, [f"events were lost or duplicated, or none came from the product to GlitchTip: {counted}"]
        )


def forward(state: Walk, step: str, phases: list[str], *, sampled: bool) -> None:
    """Run the phases; after phase 4 and after an ordinary deploy every running client must have the new DSN."""
    for phase in phases:
        done = play(state, phase)
        if phase == "phase2_deploy":
            state.known_secrets["key of the new DSN"] = str(urlsplit(new_dsn()).username)
        if phase == "phase3_parallel_run" and sampled and done.seconds < SOAK:
            state.note(step, [f"the parallel run of {SOAK} s had its verdict after {done.seconds} s"])
        if phase == "phase4_cutover":
            applied = f"/var/lib/ai-admin-cutover/{MIGRATION}/applied.json"
            see_services(state, f"{step}, phase 4", new_dsn(), applied)
            deploy()
            see_services(state, f"{step}, a deploy after phase 4", new_dsn())
    see_services(state, f"{step}, phase 5", new_dsn())
    see_decoy(state, step)


def before(state: Walk) -> None:
    """The server as it is: every service on "Sentry", and phase 0 in check mode has no objection.

    The control of all that follows: the same answers, held against another DSN, must be a false proof of every service.
    """
    found = see_services(state, "before", state.original_dsn)
    other = running.Client.of_dsn("http://0123456789abcdef@192.0.2.1:9000/1")
    noticed = running.false_proofs(found, [{"name": name, "proof": "probe"} for name in SERVICES], other)
    if len(noticed) != len(SERVICES):
        raise RigError(f"The check for false proofs notices {len(noticed)} of {len(SERVICES)}: {noticed}.")
    play(state, "phase0_prepare", check=True)


def first(state: Walk) -> None:
    """All phases, then what any operator does later: export and drift."""
    forward(state, "first walk", walk.PHASES, sampled=True)
    exported = DIRECTORY / "configuration"
    files = [f"@{exported}/{name}.yml" for name in ("configuration", "configuration-secrets")]
    given = [part for file in files for part in ("-e", file)]
    try:
        play(state, "export", extra=("-e", f"configuration_export_dir={exported}"))
        play(state, "drift", extra=(*given, "-e", "configuration_drift_report="))
    except RigError as error:
        # No phase needs them: the walk goes on.
        state.note("first walk", [str(error)])
    see_decoy(state, "export and drift")


def rollback(state: Walk) -> None:
    """Every service on "Sentry" again, after a deploy too."""
    play(state, "rollback")
    see_services(
        state,
        "rollback",
        state.original_dsn,
        f"/var/lib/glitchtip-migration/{MIGRATION}/rollback.json",
    )
    deploy()
    see_services(state, "a deploy after the rollback", state.original_dsn)


def second(state: Walk) -> None:
    """From the parallel run to phase 5 again."""
    forward(state, "second walk", walk.PHASES[3:], sampled=False)
    events(state, "first and second walk")


def uninstall(state: Walk) -> None:
    """Back, and everything away, the events too."""
    rollback(state)
    play(
        state, "uninstall", extra=("-e", f"uninstall_confirm={TARGET}", "-e", "uninstall_delete_events=true")
    )
    state.uninstalled_at = datetime.now(UTC).isoformat()
    see_services(state, "uninstall", state.original_dsn)


def third(state: Walk) -> None:
    """All phases once more, where a migration has been; the parallel run is sampled anew."""
    forward(state, "third walk", walk.PHASES, sampled=True)
    events(state, "third walk")


STEPS: dict[str, Callable[[Walk], None]] = {
    step.__name__: step for step in (before, first, rollback, second, uninstall, third)
}


def chosen(environment: str) -> list[str]:
    """The steps from the one that OPERATOR_FROM names, all without it. RigError for an unknown one."""
    names = list(STEPS)
    if not environment:
        return names
    if environment not in names:
        raise RigError(f"OPERATOR_FROM={environment}: no such step; there are {', '.join(names)}.")
    return names[names.index(environment) :]


def operator() -> None:
    """The whole walk; OPERATOR_FROM=STEP goes on with that step on the server of the last run. RigError with all that is wrong."""
    began = time.monotonic()
    wanted = os.environ.get("OPERATOR_FROM", "")
    names = chosen(wanted)
    state = Walk.load() if wanted else up()
    ended = ""
    try:
        for name in names:
            say(f"\noperator: step {name}")
            STEPS[name](state)
            state.save()
    except RigError as error:
        ended = f"The walk ended in step {name}: {error}"
    state.save()
    demo.table("Operator", ["playbook", "seconds", "tasks", "changed"], state.rows)
    say(f"\n{time.monotonic() - began:.0f} s")
    report(state, ended)
    if not os.environ.get("OPERATOR_KEEP"):
        world.remove_server(SERVER)


def report(state: Walk, ended: str) -> None:
    """Print every objection once. RigError when there is one, or the walk did not come to its end."""
    problems = list(dict.fromkeys(state.problems))
    for number, problem in enumerate(problems, start=1):
        say(f"  {number}. {problem}")
    if problems or ended:
        counted = f"{len(problems)} things were wrong (see the list above). " if problems else ""
        raise RigError(
            f"{counted}{ended or 'The walk itself came to its end.'} The server stays up: OPERATOR_FROM=STEP"
            f" goes on there ({', '.join(STEPS)}), `docker exec -it {NAME} bash` looks at it."
        )
    say("Every running SDK client was what the records say, in every step.")

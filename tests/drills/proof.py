"""A probe that would prove the wrong thing: what runs is not what the instrument file and PM2's list say."""

from __future__ import annotations

from drills import lite, off
from drills.framework import Case, Control, Drill
from drills.lite import Lite

#: A service that reports nothing by itself, so that only a probe can stand in for it.
SILENT = "whatsapp-backup-service"
APP = "/opt/ai-admin"
_PM2 = "PM2_HOME=/root/.pm2 pm2"
_ANY_INSTRUMENT = """
_option = _import_option
def _import_option(request):
    head, _, code = _option(request).partition("base64,")
    text = base64.b64decode(code).decode()
    text = text.replace("if (!scopes().length) {", "await import(pathToFileURL(request.instruments.at(-1)).href); if (false) {")
    text = text.replace("doubts.length < 3", "false")
    return head + "base64," + base64.b64encode(text.encode()).decode()
"""
_AS_LISTED = """
def launch_if_running(process):
    home = {"PATH": SYSTEM_PATH, "HOME": "/root"}
    return Launch("/usr/bin/node", (), "/opt/ai-admin/src/index.js", (), process.cwd, {**home, **process.environment})
"""


def _believed(world: Lite) -> None:
    """A probe is believed: the code is not read, and nobody has to be heard before confirm."""
    off.patched("proof", "_import_option", _ANY_INSTRUMENT)(world)
    off.patched("awaited", "Awaited.hear", "Awaited.hear = lambda self, *a, **k: []")(world)


def _false_proof(name: str) -> Control:
    """The probe loads the others' instrument file whatever is there already, and nothing is read in the code."""
    return Control(
        name,
        off.patched("proof", "_import_option", _ANY_INSTRUMENT),
        "apply ended with code 0|went to the other",
    )


NO_PRELOAD = _false_proof("the instrument file is loaded over the service's own client")
NO_CODE = Control(
    "what the script does before the instrument file is not read, and nobody has to be heard",
    _believed,
    "confirm ended with code 0|went to the other",
)
AS_LISTED = Control(
    "the probe runs as PM2's list says",
    off.patched("pm2", "launch_if_running", _AS_LISTED),
    "apply ended with code 0",
)
NO_INHERITED = Control(
    "the daemon's environment is not read",
    off.patched("pm2", "Pm2._with_inherited", "Pm2._with_inherited = lambda self, process: process"),
    "apply ended with code",
)


def _restarted(world: Lite, start: str, arguments: str = "") -> None:
    """The silent service as ``pm2 start`` with these words starts it, in PM2's saved list, too."""
    world.root(
        f"cd {APP} && {_PM2} delete {SILENT} >/dev/null && {_PM2} start {start} --name {SILENT} {arguments} >/dev/null"
        f" && {_PM2} save >/dev/null"
    )
    world.wait_online()


def _esm_preload(case: Case) -> None:
    """An ES module with ``--import`` of an instrument file that holds the DSN; the others' file says otherwise."""
    world = case.world
    sdk = "import * as Sentry from '@sentry/node';\n"
    world.write(f"{APP}/src/instrument.mjs", f"{sdk}Sentry.init({{ dsn: '{world.sentry.dsn}' }});\n", "644")
    world.write(f"{APP}/src/backup.mjs", "setInterval(() => {}, 60000);\n", "644")
    _restarted(world, "src/backup.mjs --node-args='--import ./src/instrument.mjs'")
    case.expect_code(world.program("apply --json"), 3, "apply")


def _daemon(case: Case) -> None:
    """PM2's daemon was started in a shell that exported the DSN, and a service runs in cluster mode."""
    world = case.world
    world.root(
        f"systemctl stop pm2-root; {_PM2} kill >/dev/null 2>&1;"
        f" export SENTRY_DSN=$(sed -n s/^SENTRY_DSN=//p {lite.ENV_FILE}); {_PM2} resurrect >/dev/null"
    )
    _restarted(world, "src/services/whatsapp-backup.js -i 2")
    for command in ("apply", "confirm"):
        case.expect_code(world.program(f"{command} --json"), 0, command)
    shown = world.program("status --json").document.get("services", [])
    hosts = [(row["instances"], row["process_dsn_host"]) for row in shown if row["name"] == SILENT]
    case.expect(hosts == [(2, world.glitchtip.host)], f"status shows of the cluster's processes {hosts}")


def _npm_start(case: Case) -> None:
    """``pm2 start npm -- start``, whose script names another file of variables; it holds the old DSN."""
    world = case.world
    world.write(f"{APP}/src/other.env", f"SENTRY_DSN={world.sentry.dsn}\n")
    run = (
        f"DOTENV_CONFIG_PATH={APP}/src/other.env node -r dotenv/config {APP}/src/services/whatsapp-backup.js"
    )
    world.root(f"mkdir -p {APP}/src/npm && ln -sfn {APP}/node_modules {APP}/src/npm/node_modules")
    world.write(f"{APP}/src/npm/package.json", f'{{"scripts": {{"start": "{run}"}}}}\n', "644")
    _restarted(world, f"npm --cwd {APP}/src/npm", "-- start")
    case.expect_code(world.program("apply --json"), 3, "apply")


def _no_old_tracker(case: Case) -> None:
    """A service sets the old DSN itself and talks; without a token for the old tracker nobody hears it there."""
    world = case.world
    text = f"process.env.SENTRY_DSN = '{world.sentry.dsn}';\n"
    file = f"{APP}/src/services/baileys-whatsapp.js"
    world.root(f"cat - {file} > /root/edited && cp /root/edited {file}", input_text=text)
    world.configure(old=None)
    case.never_confirmed("baileys-whatsapp", 1, back=5)


DRILLS = (
    Drill(
        "ESM preload holds the DSN",
        "an ES module loads an instrument file of its own with the old DSN in it",
        "apply fails with 3, back",
        _esm_preload,
        NO_PRELOAD,
    ),
    Drill(
        "DSN in PM2's daemon",
        "PM2's daemon has SENTRY_DSN in its environment, a service runs in cluster mode",
        "all on the new DSN, status shows it",
        _daemon,
        NO_INHERITED,
        "glitchtip",
    ),
    Drill(
        "npm start with another .env",
        "pm2 start npm -- start, with a dotenv path of its own that holds the old DSN",
        "apply fails with 3, back",
        _npm_start,
        AS_LISTED,
    ),
    Drill(
        "no old tracker to ask",
        "a service sets the old DSN itself and talks, no token for the old tracker is given",
        "apply refuses with 1 or confirm does, back",
        _no_old_tracker,
        NO_CODE,
    ),
)

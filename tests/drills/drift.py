"""After the switch, an ordinary deploy puts the old DSN back: it is named before, noticed after, and mended by a new apply."""

from __future__ import annotations

from drills import lite, off
from drills.framework import Case, Control, Drill

SERVICE = "ai-admin-telegram-bot"
FILE = "/opt/ai-admin/deploy.config.cjs"
NOTHING_COMPARED = Control(
    "nothing is compared with the target",
    off.patched("drift", "judge", "judge = lambda *arguments, **options: []"),
    "drift (after the deploy )?ended with code 0",
)


def _pm2(case: Case, command: str) -> None:
    case.world.root(f"cd /opt/ai-admin && PM2_HOME=/root/.pm2 pm2 {command} >/dev/null")


def _drift(case: Case, code: int, *words: str, when: str = "") -> None:
    """``drift`` ends with that code, and its problems hold every word."""
    done = case.world.program("drift --json")
    case.expect_code(done, code, f"drift {when}".strip())
    told = " ".join(done.document.get("problems", []))
    for word in words:
        case.expect(word in told, f"drift {when} does not name {word}: {told[:300]}")


def _switch_again(case: Case) -> None:
    for command in ("apply", "confirm"):
        case.expect_code(case.world.program(f"{command} --json"), 0, f"{command} after the deploy")
    _drift(case, 0, when="after the second switch")


def _reload(case: Case) -> None:
    """``pm2 reload`` of an ecosystem file whose ``env_production`` still has the old DSN."""
    case.applied()
    case.world.write(
        FILE,
        f"module.exports = {{ apps: [{{ name: '{SERVICE}', script: 'src/services/telegram-bot.js', cwd: __dirname,\n"
        f"  env_production: {{ SENTRY_DSN: '{case.world.sentry.dsn}' }} }}] }};\n",
    )
    try:
        _drift(case, 1, f"{FILE}:2 env_production.SENTRY_DSN", "--env production")
        _pm2(case, f"reload {FILE} --env production")
        _drift(case, 1, f"{FILE}:2", f"{SERVICE} (process", when="after the deploy")
    finally:
        case.world.root(f"rm -f {FILE}")
    _switch_again(case)


def _rewritten(case: Case) -> None:
    """A deploy that writes ``.env`` anew and restarts everything."""
    case.applied()
    case.world.root(f"cp -p {lite.BASE}/env {lite.ENV_FILE}")
    _pm2(case, f"restart {SERVICE}")
    _drift(case, 1, f"{lite.ENV_FILE}:", case.world.sentry.host, when="after the deploy")
    _switch_again(case)


DRILLS = (
    Drill(
        "deploy reloads an ecosystem file",
        "pm2 reload --env production brings the old DSN back for one service",
        "file, line and service are named; a new apply mends it",
        _reload,
        NOTHING_COMPARED,
        "glitchtip",
    ),
    Drill(
        "deploy rewrites .env",
        "a deploy writes the old .env and restarts a service",
        "the line is named; a new apply mends it",
        _rewritten,
        NOTHING_COMPARED,
        "glitchtip",
    ),
)

"""The product does not do as it should: it crashes, ignores the new DSN, its schedule fires, its disk is full."""

from __future__ import annotations

import time
from dataclasses import replace

from rig.shell import RigError

from drills import lite, off
from drills.framework import Case, Control, Drill

NO_PROOF = Control(
    "nothing is proven",
    off.patched(
        "proving",
        "Proving.outcomes",
        "Proving.outcomes = lambda self, names, *a, **k: ((name, Proof('own_event')) for name in names)",
    ),
    "apply ended with code 0",
)
NO_WATCH = Control(
    "restarts are not watched, nothing is proven",
    off.together(
        off.patched("services", "Services._check", "Services._check = lambda self, listed: None"), NO_PROOF.off
    ),
    r"\.env holds|is not as it was|uses the new|ended with code",
)
NO_VARIABLES = Control(
    "PM2's stored environment left alone",
    off.patched(
        "pm2",
        "Pm2.restart",
        "_restart = Pm2.restart\nPm2.restart = lambda self, process, variables=None: _restart(self, process)",
    ),
    "apply ended with code",
)
NO_JOBS = Control(
    "a job is taken for a service",
    off.patched(
        "pm2",
        "process_of",
        "_of = process_of\ndef process_of(entry):\n    import dataclasses\n    return dataclasses.replace(_of(entry), cron_job=False)",
    ),
    "did not come to restart.*is stopped|apply ended with code",
)
NO_IN_PLACE = Control(
    "bytes are never replaced in place",
    off.patched(
        "envfile", "write_over", "def write_over(found, data, *, seen, **options):\n    write(found, data, **options)"
    ),
    "rollback on a full disk ended with code 4",
)
NOT_ATOMIC = Control(
    "files are written in place",
    off.patched(
        "envfile",
        "write",
        "def write(found, data, *, name=None, **options):\n"
        "    path = found.path if name is None else found.path.with_name(name)\n"
        "    try:\n"
        "        with open(path, 'wb') as file:\n"
        "            file.write(data)\n"
        "    except OSError as error:\n"
        "        raise CutoverError(f'cannot write {path}: {error.strerror}') from error\n"
        "write_over = write",
    ),
    r"\.env|not 4",
)
_SMALL = "/srv/small"
#: Exit code: another run is under way.
_BUSY = 75


def _edit(case: Case, file: str, text: str) -> None:
    """Put a line before everything else of one of the product's files; processes that run have read it already."""
    case.world.root(
        f"cat - /opt/ai-admin/{file} > /root/edited && cp /root/edited /opt/ai-admin/{file}",
        input_text=text + "\n",
    )


def _crash_loop(case: Case) -> None:
    """A service that dies a moment after each start, wherever errors do not go to Sentry."""
    _edit(
        case,
        "src/workers/index-v2.js",
        "setTimeout(() => { if (!String(process.env.SENTRY_DSN).includes('sentry.')) process.exit(7); }, 700);",
    )
    case.expect_code(case.world.program("apply --json"), 3, "apply")


def _built_in(case: Case) -> None:
    """The DSN was put into the code when it was built: the instrument file of all services."""
    _edit(case, "src/instrument.js", f"process.env.SENTRY_DSN = '{case.world.sentry.dsn}';")
    case.expect_code(case.world.program("apply --json"), 3, "apply")


def _one_ignores(case: Case) -> None:
    """One service sets the DSN itself, before its instrument is loaded; a probe of the instrument cannot see that.

    It is noticed by its own events, while `apply` waits for them or by `confirm`; unconfirmed, the switch is rolled back.
    """
    _edit(case, "src/services/baileys-whatsapp.js", f"process.env.SENTRY_DSN = '{case.world.sentry.dsn}';")
    case.never_confirmed("baileys-whatsapp", 3)


def _stored(case: Case) -> None:
    """Every service carries the DSN in PM2's environment, one of them with a plain restart in between."""
    for name in ("ai-admin-api", "baileys-whatsapp-service"):
        case.world.root(
            f"cd /opt/ai-admin && SENTRY_DSN=$(sed -n s/^SENTRY_DSN=//p {lite.ENV_FILE})"
            f" PM2_HOME=/root/.pm2 pm2 restart {name} --update-env >/dev/null && PM2_HOME=/root/.pm2 pm2 save >/dev/null"
        )
    case.expect_code(case.world.program("apply --json"), 0, "apply")
    case.expect_code(case.world.program("confirm --json"), 0, "confirm")
    stored = case.observer.collected()["dump"]
    carrying = {
        name
        for name in ("ai-admin-api", "baileys-whatsapp-service", lite.CARRIER)
        if stored.get(name) == "new"
    }
    case.expect(len(carrying) == 3, f"PM2's saved list carries the new DSN only for {sorted(carrying)}")


def _cron(case: Case) -> None:
    """The scheduled job starts in the middle, and has an error to report."""
    case.world.root("mkdir -p /var/lib/ai-admin/spool && echo broken > /var/lib/ai-admin/spool/1.json")
    try:
        process, pid = case.at("restart", case.apply, 3)
    except RigError as error:
        case.expect(False, str(error))
        return
    # PM2 starts it at second 0: the run goes on just before.
    time.sleep((58 - time.time()) % 60)
    case.go_on(pid)
    case.expect_code(case.world.end(process), 0, "apply")
    case.expect_code(case.world.program("confirm --json"), 0, "confirm")


def _small_disk(case: Case, pages: int = 2) -> None:
    """.env, which fills one page, becomes a link into a file system of its own; with the new DSN it needs two. Recorded there."""
    case.world.root(
        f"mkdir -p {_SMALL}; mountpoint -q {_SMALL} || mount -t tmpfs -o size={pages * 4}k,mode=700 small {_SMALL};"
        f" cp -p {lite.ENV_FILE} {_SMALL}/env && ln -sf {_SMALL}/env {lite.ENV_FILE}.l && mv -T {lite.ENV_FILE}.l {lite.ENV_FILE}"
        f" && rm -rf {lite.STATE_DIR}"
    )
    case.expect_code(case.world.program("snapshot --json"), 0, "snapshot of the moved .env")


def _fill(case: Case) -> None:
    case.world.root(
        f"head -c 4096 /dev/zero > {_SMALL}/filler; ! head -c 1 /dev/zero > {_SMALL}/more 2>/dev/null; rm -f {_SMALL}/more"
    )


def _unfill(case: Case) -> None:
    case.world.root(f"rm -f {_SMALL}/filler")


def _disk_full(case: Case) -> None:
    """The disk is full when .env is to be switched; the new value needs one page more."""
    _small_disk(case)
    _fill(case)
    try:
        done = case.world.program("apply --json")
        case.expect(
            done.code in (1, 3),
            f"apply on a full disk ended with code {done.code}, not 1 or 3: {done.text[-200:]}",
        )
    finally:
        _unfill(case)


def _disk_full_back(case: Case) -> None:
    """The disk is full when .env is to be restored: there is no room for a second file, so its own bytes are replaced."""
    # Room for both while the switch is made; the filler takes the third page then.
    _small_disk(case, pages=3)
    case.applied()
    _fill(case)
    try:
        case.expect_code(case.world.program("rollback --json"), 0, "rollback on a full disk")
        case.problems += case.observer.quiet()
    finally:
        _unfill(case)
    # The recovery may be at one more try: who comes in between is told so.
    deadline = time.monotonic() + 60
    while (done := case.world.program("rollback --json")).code == _BUSY and time.monotonic() < deadline:
        time.sleep(1)
    case.expect_code(done, 0, "rollback with room again")


DRILLS = (
    Drill(
        "crash loop",
        "a service dies 0.7 s after each start on the new DSN",
        "apply fails with 3, back",
        _crash_loop,
        NO_WATCH,
    ),
    Drill(
        "DSN built in",
        "the product's instrument has the old DSN in its code",
        "apply fails with 3, back",
        _built_in,
        NO_PROOF,
    ),
    Drill(
        "one service ignores the DSN",
        "a service sets the old DSN itself and reports to it",
        "apply fails or confirm refuses, back",
        _one_ignores,
        replace(
            NO_PROOF, name="nothing is proven, nor asked for by confirm", sign="confirm ended with code 0"
        ),
    ),
    Drill(
        "DSN in PM2's environment",
        "three services carry the DSN in PM2's stored environment",
        "all on the new DSN, saved list too",
        _stored,
        NO_VARIABLES,
        "glitchtip",
    ),
    Drill(
        "cron_restart fires",
        "the scheduled job starts half way and reports an error",
        "the switch ends well",
        _cron,
        NO_JOBS,
        "glitchtip",
    ),
    Drill(
        "disk full",
        "no room when .env is written",
        "apply fails, nothing half-written",
        _disk_full,
        NOT_ATOMIC,
        short=True,
    ),
    Drill(
        "disk full on the way back",
        "no room when .env is put back",
        "the bytes of .env are replaced in place, 0",
        _disk_full_back,
        NO_IN_PLACE,
    ),
)

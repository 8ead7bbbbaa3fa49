"""The drills' own world: one server with the sample product under PM2, and two trackers beside it.

Lighter than the demo's: no engine on the server, both trackers are containers of this machine ("Sentry" as
``sentry.example.org``, "GlitchTip" as ``glitchtip.example.org``), so that a server is back 10 s after its plug was
pulled. The program and its units are installed by the real role. Names begin with ``gtm-drill``, ports are its own:
it stands beside the demo's world without touching it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ai_admin.ledger import Ledger, parse_ledger
from rig import engine, images, subject
from rig.shell import CACHE, ROOT, RigError, run, wait_for
from rig.trackers import SCOPES, Tracker
from rig.world import system_container, write_private
from stack import PARTS, Stack, start, stop

from glitchtip_api import Client
from glitchtip_api.session import login

#: Another number makes a second world beside the first, with names and ports of its own.
WORLD = int(os.environ.get("DRILLS_WORLD", "1"))
NETWORK = "gtm-drill" if WORLD == 1 else f"gtm-drill{WORLD}"
SERVER = f"{NETWORK}-server"
SSH_PORT = 22040 + WORLD
PUBLISHED = 29008 + 2 * WORLD
DIRECTORY = CACHE / SERVER
KEY = DIRECTORY / "id_ed25519"
INVENTORY = DIRECTORY / "inventory.yml"
HERE = Path(__file__).resolve().parent

MIGRATION = "drill"
STATE_DIR = f"/var/lib/ai-admin-cutover/{MIGRATION}"
JOURNAL = f"{STATE_DIR}/journal.jsonl"
CONFIG = "/etc/ai-admin-cutover/config.json"
ENV_FILE = "/opt/ai-admin/.env"
LEDGER = "/var/lib/ai-admin/ledger.jsonl"
DUMP = "/root/.pm2/dump.pm2"
BASE = "/root/drill-base"
PROGRAM = "ai-admin-cutover"
PAGE = 4096
#: Carries the DSN in its PM2 environment: changing .env alone changes nothing there.
CARRIER = "whatsapp-safe-monitor"
SERVICES = (
    "ai-admin-api",
    "ai-admin-worker-v2",
    "ai-admin-batch-processor",
    "ai-admin-telegram-bot",
    "ai-admin-booking-monitor",
    "baileys-whatsapp-service",
    "whatsapp-backup-service",
    "whatsapp-safe-monitor",
)
JOB = "ai-admin-batch-processor"
CANARY = "ai-admin-booking-monitor"


@dataclass(frozen=True)
class Side:
    """One tracker: its stack, how to read it, the product's DSN there, a token that the host uses."""

    stack: Stack
    tracker: Tracker
    dsn: str
    token: str

    @property
    def host(self) -> str:
        """Host and port of its DSN."""
        return urlsplit(self.dsn).netloc.rpartition("@")[2]

    @property
    def name(self) -> str:
        """Host of its DSN without the port, as the product's ledger calls it."""
        return self.host.partition(":")[0]

    @property
    def key(self) -> str:
        """The public key of its DSN: a secret of ours that must not appear anywhere."""
        return urlsplit(self.dsn).username or ""

    def containers(self, *parts: str) -> list[str]:
        """Names of its containers, all or some."""
        return [f"{self.stack.name}-{part}" for part in parts or PARTS]

    def stored(self, since: float) -> Counter[str]:
        """How often each event that came in since then (epoch seconds) stands in the database, which is asked itself.

        The tracker's own API is not asked: it is what the program under test believes.
        """
        query = (
            "SELECT event.id, count(*) FROM issue_events_issueevent event JOIN issue_events_issue issue ON issue.id = event.issue_id"
            f" WHERE issue.project_id = {int(self.tracker.project_id)} AND event.received >= to_timestamp({since - 5:.3f})"
            " GROUP BY event.id"
        )
        psql = ["docker", "exec", f"{self.stack.name}-postgres", "psql", "-U", "glitchtip", "-d", "glitchtip"]
        rows = run([*psql, "-tA", "-F", " ", "-c", query]).stdout.split("\n")
        pairs = [row.split() for row in rows if row.strip()]
        return Counter({pair[0].replace("-", ""): int(pair[1]) for pair in pairs})


def _stack(name: str, alias: str, published: int, image: str) -> Stack:
    return Stack(
        name=name,
        image=image,
        postgres_image=images.tag("postgres"),
        valkey_image=images.tag("valkey"),
        line="5.2",
        published=published,
        domain=f"http://{alias}:9000",
        network=NETWORK,
        alias=alias,
        alias_port=9000,
        email="owner@example.org",
    )


def _side(stack: Stack) -> Side:
    """Start a tracker and give it the product's project."""
    start(stack)
    with login(stack.url, stack.email, stack.superuser_password) as session:
        token = session.ensure_token("drills", SCOPES).token
        reader = session.ensure_token("host", ["project:read", "event:read", "org:read"]).token
    client = Client(stack.url, token)
    organization = next((o for o in client.organizations.list() if o["name"] == "Example"), None)
    organization = organization or client.organizations.create("Example")
    slug = organization["slug"]
    team = next((t for t in client.teams.list(slug) if t["slug"] == "ai-admin"), None)
    team = team or client.teams.create(slug, "ai-admin")
    project = next((p for p in client.projects.list(slug) if p["name"] == "ai-admin"), None)
    project = project or client.projects.create(slug, team["slug"], name="ai-admin", platform="node")
    key = client.keys.list(slug, project["slug"])[0]
    tracker = Tracker(
        url=stack.url,
        email=stack.email,
        password=stack.superuser_password,
        token=token,
        organization=slug,
        project=project["slug"],
        project_id=str(project["id"]),
    )
    return Side(stack, tracker, str(key["dsn"]["public"]), reader)


@dataclass
class Output:
    """What one process said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output; empty where there is none."""
        lines = [line for line in self.out.splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return found


class Lite:
    """The running world. ``outputs`` keeps all that commands printed since the drill began, to look for secrets in.

    ``interrupts``: whether a Ctrl-C reaches the play; a control says no, until the next reset. ``memory_limits``: memory of single services
    in stacks of the role's own that a drill starts beside; a control sets old ones.
    """

    def __init__(self, sentry: Side, glitchtip: Side) -> None:
        self.sentry = sentry
        self.glitchtip = glitchtip
        self.outputs: list[str] = []
        self.interrupts = True
        self.memory_limits: dict[str, str] = {}
        self.canaries: dict[str, str] = {
            "key of the old DSN": sentry.key,
            "key of the new DSN": glitchtip.key,
            "token of the old tracker": sentry.token,
            "token of the new tracker": glitchtip.token,
        }

    # ------------------------------------------------------------------ commands on the server

    def root(
        self, command: str, *, input_text: str | None = None, check: bool = True, timeout: float = 300
    ) -> Output:
        """A shell command on the server as root, from outside (no SSH); what it prints is the observer's, not judged."""
        interactive = ["-i"] if input_text is not None else []
        done = run(
            ["docker", "exec", *interactive, SERVER, "sh", "-c", command],
            input_text=input_text,
            check=check,
            timeout=timeout,
        )
        return Output(done.returncode, done.stdout.rstrip("\n"), done.stderr)

    def begin(self, arguments: str) -> subprocess.Popen[str]:
        """Start the program with these arguments and do not wait."""
        return subprocess.Popen(
            ["docker", "exec", SERVER, "sh", "-c", f"{PROGRAM} {arguments}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], seconds: float = 300) -> Output:
        """Wait for one that was started; its output is kept for the search for secrets."""
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RigError(f"The program did not end within {seconds:.0f} s.") from None
        self.outputs += [out, err]
        return Output(process.returncode, out, err)

    def program(self, arguments: str, seconds: float = 300) -> Output:
        """Run the program to its end, as an operator on the server would."""
        return self.end(self.begin(arguments), seconds)

    def ssh_argv(self) -> list[str]:
        """The command that reaches the server as an operator would."""
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=5"
        return ["ssh", "-i", str(KEY), "-p", str(SSH_PORT), *options.split(), "root@127.0.0.1"]

    def write(self, path: str, text: str, mode: str = "600") -> None:
        """Write a file of the server; the text travels on standard input."""
        self.root(
            f"umask 077; cat > {path}.new && chmod {mode} {path}.new && mv {path}.new {path}", input_text=text
        )

    def configure(self, **changes: Any) -> None:
        """Change fields of the program's configuration until the next reset."""
        config = json.loads(self.root(f"cat {CONFIG}").out)
        for key, value in changes.items():
            if value is None:
                config.pop(key, None)
            else:
                config[key] = value
        self.write(CONFIG, json.dumps(config))

    # ------------------------------------------------------------------ the server's life

    def cut_power(self) -> None:
        """Pull the plug: no process gets to say anything."""
        run(["docker", "kill", "-s", "KILL", SERVER])

    def boot(self) -> float:
        """Boot a server whose plug was pulled; seconds until everything that starts at boot has started."""
        began = time.monotonic()
        run(["docker", "start", SERVER])
        self.wait_for_boot()
        return time.monotonic() - began

    def wait_for_boot(self) -> None:
        """Wait until systemd has done everything that a boot wants."""

        def booted() -> bool:
            done = run(["docker", "exec", SERVER, "systemctl", "is-system-running"], check=False)
            return done.stdout.strip() in {"running", "degraded"}

        wait_for("The server's boot", booted, seconds=180, pause=0.3)

    def wait_online(self, seconds: float = 60) -> None:
        """Wait until PM2 answers and shows every service online, a job that waits for its minute included."""
        wait_for("PM2 with all services online", lambda: self.all_online(), seconds=seconds, pause=0.5)

    def jlist(self) -> list[dict[str, Any]]:
        """PM2's list; empty when its daemon does not answer."""
        command = "[ -S /root/.pm2/rpc.sock ] && PM2_HOME=/root/.pm2 timeout 20 pm2 jlist 2>/dev/null"
        done = self.root(command, check=False)
        at = done.out.find("[{")
        try:
            found: list[dict[str, Any]] = json.loads(done.out[at:]) if at >= 0 else []
        except ValueError:
            return []
        return found

    def all_online(self) -> bool:
        """Whether every service is online, or between two runs of its schedule."""
        status = {entry["name"]: entry["pm2_env"]["status"] for entry in self.jlist()}
        return all(
            status.get(name) == "online" or (name == JOB and status.get(name) == "stopped")
            for name in SERVICES
        )

    # ------------------------------------------------------------------ what the product did

    def ledger(self, since: float = 0.0) -> Ledger:
        """The product's ledger since then (epoch seconds): its lines, cut on the server."""
        # Lines are appended in order of time; an older line of another process may stand a moment later.
        script = (
            "import sys,datetime\n"
            f"since=datetime.datetime.fromtimestamp({since},datetime.UTC).strftime('%Y-%m-%dT%H:%M:%S')\n"
            f"[sys.stdout.write(l) for l in open({LEDGER!r}) if l[7:26] >= since]\n"
        )
        return parse_ledger(self.root("python3 -", input_text=script).out + "\n")

    def now(self) -> float:
        """The server's clock (this machine's, epoch seconds)."""
        return time.time()

    # ------------------------------------------------------------------ back to the beginning

    def keep_base(self) -> None:
        """Keep what the beginning is: .env, PM2's saved list, configuration, units."""
        self.root(
            f"mkdir -p {BASE}/units && cp -p {ENV_FILE} {BASE}/env && cp -p {DUMP} {BASE}/dump.pm2"
            f" && cp -a /etc/ai-admin-cutover {BASE}/etc && cp -a /etc/glitchtip-ops {BASE}/ops"
            f" && cp -a {STATE_DIR} {BASE}/state"
            f" && cp -p /etc/systemd/system/ai-admin-cutover*.service {BASE}/units/"
            f" && cp -a /opt/ai-admin/src {BASE}/src && cp -p /opt/ai-admin/ecosystem.config.js {BASE}/"
            f" && cp -pL $(readlink -f /usr/local/sbin/{PROGRAM}) {BASE}/program.pyz"
            f" && cp -p /usr/local/sbin/glitchtip-rollback {BASE}/glitchtip-rollback"
        )

    def reset(self) -> None:
        """Bring everything back to the beginning; a server that does not obey is booted anew for it."""
        try:
            self._reset()
        except (RigError, subprocess.TimeoutExpired):
            self.cut_power()
            self.boot()
            self._reset()

    def _reset(self) -> None:
        """Bring everything back to the beginning, whatever a drill left: trackers up, server up, product on its old DSN."""
        self.interrupts = True
        self.memory_limits = {}
        for side in (self.sentry, self.glitchtip):
            names = side.containers()
            run(["docker", "unpause", *names], check=False)
            run(["docker", "start", *names], check=False)
        if run(["docker", "inspect", "-f", "{{.State.Running}}", SERVER]).stdout.strip() != "true":
            self.boot()
        self.root(
            f"""
            for unit in {PROGRAM}.service {PROGRAM}-recover.service {PROGRAM}-deadline.timer {PROGRAM}-deadline.service \\
                        {PROGRAM}-verify.service {PROGRAM}-watch.service; do
              systemctl kill -s KILL $unit 2>/dev/null; systemctl stop $unit 2>/dev/null; systemctl reset-failed $unit 2>/dev/null
            done
            pkill -9 -f '[a]i-admin-cutover.pyz'
            rm -rf /etc/systemd/system/{PROGRAM}*.d /run/systemd/system/{PROGRAM}*.d /etc/systemd/system/pm2-root.service.d
            iptables -F OUTPUT 2>/dev/null
            rm -f {ENV_FILE}; umount -l /srv/small 2>/dev/null; rm -rf /srv/small
            umount -l {STATE_DIR} 2>/dev/null; rm -rf /srv/state-copy /run/clock-jump
            cp -p {BASE}/units/* /etc/systemd/system/; systemctl daemon-reload
            systemctl enable --quiet {PROGRAM}-recover.service 2>/dev/null
            cp -p {BASE}/program.pyz $(readlink -f /usr/local/sbin/{PROGRAM})
            cp -p {BASE}/glitchtip-rollback /usr/local/sbin/
            systemctl stop pm2-root; PM2_HOME=/root/.pm2 pm2 kill >/dev/null 2>&1; rm -f /root/.pm2/rpc.sock /root/.pm2/pub.sock
            pkill -9 -f '^node.*/opt/ai-admin/src' 2>/dev/null
            rm -rf /etc/ai-admin-cutover /opt/ai-admin/src {ENV_FILE}.part {ENV_FILE}.pre-* {ENV_FILE}.damaged-* {STATE_DIR} /etc/glitchtip-ops
            cp -a {BASE}/state {STATE_DIR}; cp -a {BASE}/etc /etc/ai-admin-cutover
            cp -a {BASE}/src /opt/ai-admin/src; cp -p {BASE}/ecosystem.config.js /opt/ai-admin/
            cp -p {BASE}/env {ENV_FILE}; cp -p {BASE}/dump.pm2 {DUMP}; rm -f {DUMP}.bak
            cp -a {BASE}/ops /etc/glitchtip-ops
            journalctl --rotate --vacuum-time=1s -q 2>/dev/null
            systemctl start pm2-root
            true
            """,
            timeout=90,
        )
        self.wait_online()
        self.outputs.clear()

    # ------------------------------------------------------------------ Ansible

    def play(self, *extra: str, name: str = "switch") -> subprocess.Popen[str]:
        """Start a play against the server, as an operator would."""
        argv = [
            str(ROOT / ".venv/bin/ansible-playbook"),
            "-i",
            str(INVENTORY),
            str(HERE / f"plays/{name}.yml"),
            *extra,
        ]
        return subprocess.Popen(
            argv,
            cwd=ROOT,
            env=_ansible_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def write_inventory(self, **changes: Any) -> None:
        """The inventory of the plays; ``changes`` are further variables."""
        variables = {
            "ansible_host": "127.0.0.1",
            "ansible_port": SSH_PORT,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(KEY),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            "ansible_python_interpreter": "/usr/bin/python3",
            "migration_id": MIGRATION,
            "preflight_target_id": MIGRATION,
            "ai_admin_cutover_old_api_url": f"http://{self.sentry.host}",
            "ai_admin_cutover_old_organization": self.sentry.tracker.organization,
            "ai_admin_cutover_old_project": self.sentry.tracker.project,
            "ai_admin_cutover_old_token": self.sentry.token,
            "ai_admin_cutover_own_event_wait": 2,
            "ai_admin_cutover_probe_wait": 15,
            "ai_admin_cutover_stable_seconds": 1,
            "ai_admin_cutover_confirm_window": 600,
            "ai_admin_cutover_run_max": 300,
            "ai_admin_cutover_verdict_file": "",
            "ai_admin_cutover_watch_seconds": 0,
            **changes,
        }
        document = {"all": {"children": {"servers": {"hosts": {"drill": variables}}}}}
        write_private(INVENTORY, json.dumps(document, indent=1))


def _ansible_environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_LIBRARY": str(ROOT / "library"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }


def prepare() -> None:
    """What every world needs: the engine, and images."""
    engine.ensure()
    images.build_all(["product", "postgres", "valkey", "standin-5.2"])


def launch(*, interval_ms: int = 1000) -> Lite:
    """Build the world from nothing (about a minute with images present) and bring it to the drills' beginning.

    ``interval_ms``: time between two errors of each of the five services that emit (20 events/s: 250).
    """
    prepare()
    if run(["docker", "network", "inspect", NETWORK], check=False).returncode:
        run(["docker", "network", "create", "--label", "owner=gtm", NETWORK])
    with ThreadPoolExecutor(max_workers=3) as pool:
        server = pool.submit(_start_server)
        sides = [
            pool.submit(
                _side,
                _stack(f"{NETWORK}-sentry", "sentry.example.org", PUBLISHED, images.tag("standin-5.2")),
            ),
            pool.submit(
                _side,
                _stack(
                    f"{NETWORK}-glitchtip",
                    "glitchtip.example.org",
                    PUBLISHED + 1,
                    subject.of_line("5.2").image,
                ),
            ),
        ]
        world = Lite(sides[0].result(), sides[1].result())
        server.result()
    world.wait_for_boot()
    public = KEY.with_suffix(".pub").read_text()
    world.root("install -d -m 700 /root/.ssh && cat > /root/.ssh/authorized_keys", input_text=public)
    world.root(
        f"AI_ADMIN_DSN_IN_PM2_ENV={CARRIER} AI_ADMIN_EVENT_INTERVAL_MS={interval_ms} /opt/ai-admin/provision.sh",
        input_text=world.sentry.dsn + "\n",
    )
    # One byte less than a page of memory, so that the new, longer DSN needs a second one (drills of a full disk).
    pad = f"python3 -c \"import os; n = {PAGE} - 4 - os.path.getsize('{ENV_FILE}'); print('# ' + '-' * n)\" >> {ENV_FILE}"
    world.root(pad)
    if world.root(f"stat -c %s {ENV_FILE}").out != str(PAGE - 1):
        raise RigError(f"{ENV_FILE} of the drills' server has not the size that was wanted.")
    world.wait_online()
    settings = {
        "url": f"http://{world.glitchtip.host}",
        "organization": world.glitchtip.tracker.organization,
        "project": world.glitchtip.tracker.project,
        "project_id": world.glitchtip.tracker.project_id,
    }
    world.root("install -d -m 700 /etc/glitchtip-ops")
    world.write("/etc/glitchtip-ops/settings.json", json.dumps(settings))
    world.write("/etc/glitchtip-ops/dsn", world.glitchtip.dsn + "\n")
    world.write("/etc/glitchtip-ops/token", world.glitchtip.token + "\n")
    world.write_inventory()
    install(world)
    world.keep_base()
    return world


def install(world: Lite) -> None:
    """Program, units, configuration and snapshot by the real role."""
    process = world.play(name="prepare")
    out, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RigError("The role ai-admin-cutover did not install:\n" + "\n".join(out.splitlines()[-15:]))


def _start_server() -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    if not KEY.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "drill@example.org", "-f", str(KEY)])
    system_container(
        SERVER,
        images.tag("product"),
        extra=[
            "--network",
            NETWORK,
            "-p",
            f"127.0.0.1:{SSH_PORT}:22",
            "--memory",
            "1900m",
            "--memory-swap",
            "1900m",
        ],
    )


def remove() -> None:
    """Remove the drills' containers, volumes and network, and nothing else."""
    run(["docker", "rm", "-f", "-v", SERVER], check=False)
    run(["docker", "volume", "rm", "-f", f"{SERVER}-docker"], check=False)
    for name in (f"{NETWORK}-sentry", f"{NETWORK}-glitchtip"):
        stop(name)
    run(["docker", "network", "rm", NETWORK], check=False)

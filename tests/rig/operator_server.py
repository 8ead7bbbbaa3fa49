"""The server of `make operator`, and what its operator decides for it in the inventory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from rig import images, sentry, subject, world
from rig.shell import CACHE, RigError
from rig.trackers import Tracker

NAME = "gtm-operator"
DIRECTORY = CACHE / NAME
#: Room for eight processes of the product and its PM2 beside the stack.
SERVER = world.Server(
    NAME, 22040, "operator", "2600m", user="deploy", inventory=DIRECTORY / "inventory", directory=DIRECTORY
)
#: Of the image (tests/rig/images/operator); the window is written in it.
ZONE = "Pacific/Auckland"
PORT = 8090
MIGRATION = "umzug-2026"
TARGET = "shop-1"
HOME = "/srv/shop"
APP = f"{HOME}/app"
SERVICES = ["shop-api", "shop-web", "shop-worker", "shop-mailer", "shop-archive", "shop-nightly"]
#: Seconds of the parallel run: a verdict that comes sooner was not sampled.
SOAK = 60

#: What docs/before_you_start.md tells operators to ask PM2's user: a shell as that user has it, with nvm.
_ASK_USER = "command -v pm2; command -v node; echo ${PM2_HOME:-$HOME/.pm2}"


@dataclass(frozen=True)
class Programs:
    """PM2 and Node.js of the product's user, and PM2's home, by their full paths."""

    pm2: str
    node: str
    home: str


@cache
def programs() -> Programs:
    """Ask as the documentation says. RigError when the answer is not three lines."""
    lines = world.inside(["sudo", "-u", "shop", "-H", "bash", "-ic", _ASK_USER], SERVER).split()
    if len(lines) != 3:
        raise RigError(f"The user of PM2 does not know its programs: {lines}.")
    return Programs(*lines)


def window() -> str:
    """A window that is open on the server's clock for the next hours, and not on one that shows UTC."""
    now = datetime.now(ZoneInfo(ZONE))
    begin, end = now - timedelta(hours=1), now + timedelta(hours=6)
    return f"Mon,Tue,Wed,Thu,Fri,Sat,Sun {begin:%H:%M}-{end:%H:%M}"


def answers(container: str, tracker: Tracker) -> dict[str, Any]:
    """What this operator decides in main.yml; keys are patterns of variables' names."""
    paths = programs()
    found: dict[str, Any] = {
        "migration_id": MIGRATION,
        "product_app_dir": APP,
        "product_env_file": "{{ product_app_dir }}/config/production.env",
        "product_pm2_user": "shop",
        "product_pm2_home": paths.home,
        "product_pm2_binary": paths.pm2,
        "product_node_binary": paths.node,
        "product_services": SERVICES,
        "product_modules": [],
        "preflight_target_id": TARGET,
        "docker_apt_repository_url": "http://127.0.0.1:8099/linux/debian",
        "docker_apt_key_url": "http://127.0.0.1:8099/linux/debian/gpg",
        "docker_daemon_options": {
            "log-driver": "json-file",
            "insecure-registries": [world.REGISTRY_NAME],
            # What the server's containers use counts for the server.
            "cgroup-parent": f"/docker/{container}",
        },
        "glitchtip_port": PORT,
        "glitchtip_public_url": "http://localhost:9191",
        "parallel_run_duration": f"{SOAK}s",
        "parallel_run_interval": "15s",
        "parallel_run_wait": True,
        # A container shows the load of the whole machine.
        "parallel_run_thresholds": {"max_load_per_core": 100},
        "(ai_admin_cutover_old_api_url|.*sentry_url)": sentry.URL_ON_SERVER,
        "(ai_admin_cutover_old|.*sentry)_organization": tracker.organization,
        "(ai_admin_cutover_old|.*sentry)_project": tracker.project,
        "ai_admin_cutover_instrument": "instrument.mjs",
        "ai_admin_cutover_services": [
            {"name": name, "env_file": f"{APP}/config/web.env"} if name == "shop-web" else name
            for name in SERVICES
        ],
        "ai_admin_cutover_canary": "shop-archive",
        "ai_admin_cutover_window": window(),
        "ai_admin_cutover_watch_seconds": 20,
        "ai_admin_cutover_watch_interval": 5,
    }
    given = subject.given()
    if given:
        found["glitchtip_version"] = given.version
    if given or not images.registry_reachable():
        found |= {
            "glitchtip_image": f"{world.REGISTRY_NAME}/{given.repository if given else subject.STANDIN}",
            "glitchtip_postgres_image": f"{world.REGISTRY_NAME}/standin/postgres:17",
            "glitchtip_valkey_image": f"{world.REGISTRY_NAME}/standin/valkey:8",
        }
    return found


def connection() -> dict[str, Any]:
    """How the controller reaches the server; its host key is known and checked."""
    key = world.inside(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"], SERVER).split()
    known = DIRECTORY / "known_hosts"
    known.write_text(f"[127.0.0.1]:{SERVER.port} {key[0]} {key[1]}\n")
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": SERVER.port,
        "ansible_user": SERVER.user,
        "ansible_ssh_private_key_file": str(SERVER.key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known} -o IdentitiesOnly=yes",
    }

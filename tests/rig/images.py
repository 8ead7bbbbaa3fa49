"""Images of the rig, cached by content: the tag is the hash of the Dockerfile, its context and its parent.

Base: Debian 13 from a registry where one answers, else built with mmdebstrap. PostgreSQL and Valkey are Debian's packages behind the
entrypoint, environment and volume contract of the official images, so that one Compose template serves both worlds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock

from rig.shell import ROOT, RigError, run, say

HERE = Path(__file__).parent / "images"
LOCAL_CAS = Path("/usr/local/share/ca-certificates")
REGISTRY_PROBE = "https://registry-1.docker.io/v2/"
GLITCHTIP_LINES = {"5.2": "5.2.0", "6.2": "6.2.6"}
_LOCKS: defaultdict[str, Lock] = defaultdict(Lock)
SKIP = {"node_modules", "__pycache__"}
#: Images without a Dockerfile: the suite of Debian that they hold.
SUITES = {"os": "trixie", "os-bookworm": "bookworm"}


@dataclass(frozen=True)
class Image:
    """One image: its name, its Dockerfile, what is copied into its context (target -> source), and build arguments."""

    name: str
    dockerfile: Path
    parent: str
    context: dict[str, Path] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    #: Images that stages of the Dockerfile begin with (build argument -> name), beside the parent.
    stages: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[tuple[str, Path]]:
        """Files of the context as (path inside the context, source), sorted."""
        found: list[tuple[str, Path]] = []
        for target, source in self.context.items():
            if source.is_file():
                found.append((target, source))
                continue
            found.extend(
                (str(Path(target) / path.relative_to(source)), path)
                for path in sorted(source.rglob("*"))
                if path.is_file() and not SKIP & set(path.relative_to(source).parts)
            )
        return sorted(found)


IMAGES = {
    image.name: image
    for image in [
        Image("base", HERE / "base/Dockerfile", "os", {"ca": LOCAL_CAS}),
        Image("base-bookworm", HERE / "base/Dockerfile", "os-bookworm", {"ca": LOCAL_CAS}),
        Image("server", HERE / "server/Dockerfile", "base"),
        Image("product", HERE / "product/Dockerfile", "server", {"ai_admin": ROOT / "tests/ai_admin"}),
        Image(
            "postgres",
            HERE / "postgres/Dockerfile",
            "base",
            {"docker-entrypoint.sh": HERE / "postgres/docker-entrypoint.sh"},
        ),
        Image(
            "valkey",
            HERE / "valkey/Dockerfile",
            "base",
            {"docker-entrypoint.sh": HERE / "valkey/docker-entrypoint.sh"},
        ),
        Image(
            "operator",
            HERE / "operator/Dockerfile",
            "base-bookworm",
            {
                "shop": ROOT / "tests/shop",
                "shop/lib/ledger.js": ROOT / "tests/ai_admin/src/lib/ledger.js",
                "make_repository.sh": ROOT / "molecule/docker/files/make_repository.sh",
                "decoy.py": HERE / "operator/decoy.py",
                "nftables.conf": HERE / "operator/nftables.conf",
            },
            stages={"BUILDER": "server"},
        ),
        Image("registry", HERE / "registry/Dockerfile", "base", {"config.yml": HERE / "registry/config.yml"}),
        *[
            Image(
                f"standin-{line}",
                ROOT / "tests/standin/Dockerfile",
                "base",
                {".": ROOT / "tests/standin"},
                {"LINE": line},
            )
            for line in GLITCHTIP_LINES
        ],
    ]
}


@cache
def registry_reachable() -> bool:
    """Whether a public image registry answers from here (asked once)."""
    return url_answers(REGISTRY_PROBE, also=(401,))


def url_answers(url: str, *, also: tuple[int, ...] = ()) -> bool:
    """Whether a GET of the URL gives 2xx or one of the statuses ``also``."""
    try:
        with urllib.request.urlopen(url, timeout=4):
            return True
    except urllib.error.HTTPError as error:
        return error.code in also
    except OSError:
        return False


@cache
def tag(name: str) -> str:
    """Full image name of ``name``: ``gtm/<name>:<12 hex of its content>``."""
    if name in SUITES:
        return f"gtm/os:{SUITES[name]}"
    image = IMAGES[name]
    digest = hashlib.sha256(tag(image.parent).encode())
    for stage in image.stages.values():
        digest.update(tag(stage).encode())
    digest.update(image.dockerfile.read_bytes())
    digest.update(repr(sorted(image.args.items())).encode())
    for target, source in image.files():
        digest.update(f"{target}\0{source.stat().st_mode & 0o111}\0".encode() + source.read_bytes())
    return f"gtm/{name}:{digest.hexdigest()[:12]}"


def present(name: str) -> bool:
    """Whether the engine has this very content."""
    return run(["docker", "image", "inspect", tag(name)], check=False).returncode == 0


def build(name: str) -> None:
    """Build one image, its parents first; nothing when it is present."""
    with _LOCKS[name]:
        _build_missing(name)


def _build_missing(name: str) -> None:
    if present(name):
        return
    started = time.monotonic()
    if name in SUITES:
        _build_os(name)
    else:
        for parent in (IMAGES[name].parent, *IMAGES[name].stages.values()):
            build(parent)
        _build_from_dockerfile(IMAGES[name])
    say(f"image {tag(name)} built ({time.monotonic() - started:.1f} s)")


def _build_os(name: str) -> None:
    suite = SUITES[name]
    if registry_reachable():
        run(["docker", "pull", "-q", f"debian:{suite}-slim"])
        run(["docker", "tag", f"debian:{suite}-slim", tag(name)])
        return
    if os.geteuid() != 0:
        raise RigError(
            "No image registry answers, and building the base image with mmdebstrap needs root; run make as root."
        )
    bootstrap = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", suite, "-"]
    with subprocess.Popen(bootstrap, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source:
        imported = subprocess.run(
            ["docker", "import", "-", tag(name)],
            stdin=source.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
        errors = source.stderr.read().decode() if source.stderr else ""
    if source.returncode or imported.returncode:
        run(["docker", "rmi", "-f", tag(name)], check=False)
        raise RigError(
            f"No image registry answers, and mmdebstrap could not build Debian's {suite}: {(errors + imported.stderr).strip()[-600:]}"
        )


def _build_from_dockerfile(image: Image) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for target, source in image.files():
            copy = Path(directory, target)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        for target in image.context:
            Path(directory, target).parent.mkdir(parents=True, exist_ok=True)
            if not Path(directory, target).exists():
                Path(directory, target).mkdir()
        shutil.copy(image.dockerfile, Path(directory, "Dockerfile"))
        stages = {argument: tag(name) for argument, name in image.stages.items()}
        arguments = {"BASE": tag(image.parent), **stages, **image.args}
        flags = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        run(
            ["docker", "build", "-q", "--label", "owner=gtm", "-t", tag(image.name), *flags, directory],
            env={"DOCKER_BUILDKIT": "0"},
        )


def build_all(names: list[str]) -> None:
    """Build several images, independent ones two at a time."""
    missing = [name for name in names if not present(name)]
    if not missing:
        return
    say(f"images: building {', '.join(missing)} (cached by content afterwards) ...")
    build("base")
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(build, missing))


def remove_all() -> None:
    """Remove every image that the rig built or tagged."""
    listed = run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout.split()
    ours = [name for name in listed if name.startswith(("gtm/", "127.0.0.1:25000/"))]
    if ours:
        run(["docker", "rmi", "-f", *ours])
    say(f"images removed: {len(ours)}")

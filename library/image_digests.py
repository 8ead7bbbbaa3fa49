#!/usr/bin/python
"""Have container images on a host, each with a digest that is known and stays the same."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_digests
short_description: Pull images that are missing and hold them to their first digest
description:
  - Pulls each image that the host does not have, with C(docker pull). A pull that makes no progress, or takes too
    long, is ended with a message that names the image, the registry and the seconds; the layers that arrived stay.
  - Compares its registry digest with the expected one, when one is given, and with the one that O(record) kept from the first run for the
    same reference. A difference fails before anything is written.
  - An image without a registry digest (loaded from a file) is held by its image id.
  - The digests of earlier references of an image stay in the record (C(earlier)), so that an old tag that is set again is held to its own.
options:
  images:
    description:
      - Name of each image to its C(reference) (repository and tag) and optionally C(expected) (C(sha256:) and 64 hex digits). C(because) ends the
        sentence that refuses another digest.
    type: dict
    required: true
  record:
    description:
      - JSON file on the host that keeps the digests; written when a reference is new in it. Without it nothing is kept, and nothing compared
        with earlier runs.
    type: path
  pull_seconds:
    description: Longest time for the pull of one image.
    type: int
    default: 1800
  stall_seconds:
    description: Longest time in which a pull may show no progress, no byte of a layer and no other step.
    type: int
    default: 180
attributes:
  check_mode:
    description: Predicts; images that are missing are not pulled, and RV(pinned) names them by their tag.
    support: full
  diff_mode:
    description: Not supported.
    support: none
author: [The maintainers]
"""

EXAMPLES = r"""
- name: Have the images of the stack
  image_digests:
    images:
      glitchtip: {reference: "glitchtip/glitchtip:6.2.6"}
      postgres: {reference: "postgres:17"}
    record: /opt/glitchtip/deployed.json
"""

RETURN = r"""
pinned:
  description: Each name to the reference that a Compose file should carry, C(repository:tag@sha256:...) where a digest is known.
  returned: always
  type: dict
  sample: {"postgres": "postgres:17@sha256:6a5a..."}
digests:
  description:
    - Each name to the digest that it is held to, the image id where no registry gave one. Without the images that the host does not have (check
      mode).
  returned: always
  type: dict
  sample: {"postgres": "sha256:6a5a..."}
deployed_before:
  description: Names of the images that O(record) has by this reference with this digest.
  returned: always
  type: list
pulled:
  description: Names of the images that were pulled (check mode, would be).
  returned: always
  type: list
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import selectors
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_core.errors import CoreError
from ansible.module_utils.glitchtip_core.files import write_json
from ansible.module_utils.glitchtip_core.text import printable_module

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
INSPECT_SECONDS = 60
TERM_SECONDS = 5
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LAYER = re.compile(r"\s*([^\s:]+): (.*)")


class DigestError(Exception):
    """One sentence for the operator."""


def pick_digest(reference: str, repo_digests: list[str]) -> str | None:
    """The digest of the reference's own repository; None for an image that came from no registry."""
    repository = re.sub(r":[^/:]+$", "", reference)
    names = {repository, f"docker.io/{repository}", f"docker.io/library/{repository}"}
    for entry in repo_digests:
        name, _, digest = entry.partition("@")
        if name in names:
            return digest
    return None


def pin(reference: str, digest: str | None) -> str:
    """``repository:tag@digest``, or the tag alone where no registry gave a digest."""
    return f"{reference}@{digest}" if digest else reference


def wishes(images: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Each name to (reference, expected digest or "", why it is expected or ""); DigestError for what cannot be one."""
    found: dict[str, tuple[str, str, str]] = {}
    for name, spec in images.items():
        reference = spec.get("reference") if isinstance(spec, dict) else None
        if not isinstance(reference, str) or not reference:
            raise DigestError(f"Image {name} needs a reference, repository and tag; nothing was changed.")
        expected = spec.get("expected") or ""
        if expected and not DIGEST.fullmatch(str(expected)):
            raise DigestError(
                f"The expected digest of {name} must be sha256: and 64 hex digits, not {expected!r}; nothing was changed."
            )
        found[name] = (reference, expected, str(spec.get("because") or ""))
    return found


def known_digests(entry: dict[str, Any]) -> dict[str, str]:
    """Every reference that the record of one image names to the digest it had first."""
    known = dict(entry.get("earlier", {}))
    if entry.get("reference") and entry.get("digest"):
        known[entry["reference"]] = entry["digest"]
    return known


def recorded_as(known: dict[str, str], reference: str, digest: str) -> dict[str, Any]:
    """The record of an image that is deployed by this reference; digests of other references are kept."""
    earlier = {name: kept for name, kept in known.items() if name != reference}
    return {"reference": reference, "digest": digest, **({"earlier": earlier} if earlier else {})}


def read_record(path: str) -> dict[str, dict[str, Any]]:
    """What earlier runs recorded, {} before the first; DigestError when the file is no such record."""
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        if not isinstance(record, dict) or not all(isinstance(entry, dict) for entry in record.values()):
            raise ValueError("not an object of objects")
        if not all(isinstance(entry.get("earlier", {}), dict) for entry in record.values()):
            raise ValueError("earlier is not an object")
    except (OSError, ValueError) as error:
        raise DigestError(
            f"The record of deployed images {path} cannot be read ({error}); nothing was changed. "
            "Restore it from a backup, or remove it to trust the images that the registry gives now."
        ) from error
    return record


def check(name: str, reference: str, digest: str, expected: str, recorded: str | None, because: str = "") -> None:
    """Raise DigestError when the digest is not the expected or not the recorded one."""
    if expected and digest != expected:
        advice = because or f"Check the tag and the pin of {name}."
        raise DigestError(
            f"Image {reference} has digest {digest}, but {expected} is expected; nothing was changed. {advice}"
        )
    if recorded and digest != recorded:
        raise DigestError(
            f"Image {reference} has digest {digest}, but the first deploy on this host had {recorded}: the tag was moved. "
            "Nothing was changed. Pin the digest that you trust, or give a new version."
        )


def registry_of(reference: str) -> str:
    """The registry of a reference; ``docker.io`` for one that names none."""
    first, slash, _ = reference.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first if named else "docker.io"


class Progress:
    """What a pull has shown so far: the last state of each layer."""

    def __init__(self) -> None:
        self.last = "nothing"
        self._states: dict[str, str] = {}
        self._rest = ""

    def feed(self, text: str) -> bool:
        """Take output; True when a layer is in another state than before. A line that comes again is no progress."""
        *lines, self._rest = re.split(r"[\r\n]+", self._rest + text)
        moved = False
        for line in (_ESCAPE.sub("", raw).strip() for raw in lines):
            found = _LAYER.fullmatch(line)
            key, state = (found[1], found[2]) if found else (line, line)
            if line and self._states.get(key) != state:
                self._states[key], self.last, moved = state, line, True
        return moved


class PullError(Exception):
    """A pull that was ended: no progress, or too long in all."""


def follow(argv: list[str], seconds: float, stall_seconds: float) -> tuple[int, str]:
    """Run a pull on a terminal of its own, because docker shows the bytes of a layer to a terminal only.

    Returns exit code and standard error. Ends it and raises PullError after `seconds` in all, or `stall_seconds`
    without progress.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=its, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        os.close(ours)
        raise PullError(f"{argv[0]} cannot be run: {error.strerror}") from error
    finally:
        os.close(its)
    try:
        return _until_end(process, ours, seconds, stall_seconds)
    finally:
        _end(process)
        os.close(ours)
        if process.stderr is not None:
            process.stderr.close()


def _until_end(
    process: subprocess.Popen[bytes], terminal: int, seconds: float, stall_seconds: float
) -> tuple[int, str]:
    assert process.stderr is not None  # noqa: S101 - for the type checker: stderr is a pipe
    progress, complaint = Progress(), b""
    began = moved = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(terminal, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            left = min(began + seconds, moved + stall_seconds) - now
            if left <= 0:
                raise PullError(_why_ended(now - began, now - moved, seconds, progress.last))
            for key, _ in selector.select(left):
                try:
                    data = os.read(key.fd, 65536)
                except OSError:  # the other side of a terminal is closed
                    data = b""
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fd == terminal:
                    moved = time.monotonic() if progress.feed(data.decode("utf-8", "replace")) else moved
                else:
                    complaint += data
    try:
        return process.wait(TERM_SECONDS), complaint.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        raise PullError("docker closed its output and did not end") from None


def _why_ended(total: float, silent: float, seconds: float, last: str) -> str:
    if total >= seconds:
        return f"it took longer than {total:.0f} s in all (pull_seconds; last seen: {last})"
    return f"no progress for {silent:.0f} s, after {total:.0f} s in all (stall_seconds; last seen: {last})"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with its children."""
    for name in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERM_SECONDS)


class Images:
    """The host's images through the docker command."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def inspect(self, reference: str) -> tuple[list[str], str] | None:
        """(registry digests, image id), or None when the host does not have it."""
        try:
            done = subprocess.run(
                ["docker", "image", "inspect", reference],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=INSPECT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise DigestError(
                f"docker image inspect {reference} did not answer within {INSPECT_SECONDS} s; nothing was changed. See "
                "`systemctl status docker` and its log."
            ) from None
        if done.returncode:
            return None
        found = json.loads(done.stdout)[0]
        return list(found.get("RepoDigests") or []), str(found["Id"])

    def pull(self, reference: str) -> None:
        """Pull; DigestError with the engine's reason when that fails."""
        limits = self.module.params["pull_seconds"], self.module.params["stall_seconds"]
        try:
            code, err = follow(["docker", "pull", reference], *limits)
        except PullError as error:
            raise DigestError(
                f"Image {reference} could not be pulled from {registry_of(reference)}: {error}. The pull was ended, "
                "nothing was changed. Check that this host reaches the registry (a proxy or firewall may hold the "
                "connection), then run it again: layers that arrived are kept. A slow line needs larger limits "
                "(glitchtip_pull_seconds, glitchtip_pull_stall_seconds); without a registry load the image with `docker load`."
            ) from None
        if code:
            reason = err.strip().splitlines()[-1:] or ["no reason given"]
            raise DigestError(
                f"Image {reference} could not be pulled: {reason[0]} Check the name, the registry and the network; nothing was changed."
            )


def run(module: AnsibleModule) -> dict[str, Any]:
    """Pull, compare, record; the module's result."""
    record_path = module.params["record"]
    asked = wishes(module.params["images"])
    record = read_record(record_path) if record_path else {}
    images = Images(module)
    have_docker = module.get_bin_path("docker") is not None
    if not have_docker and not module.check_mode:
        raise DigestError(
            "The docker command is not installed on this host; run playbooks/phase0_prepare.yml first."
        )
    pinned: dict[str, str] = {}
    digests: dict[str, str] = {}
    deployed_before: list[str] = []
    pulled: list[str] = []
    wanted = {name: dict(record.get(name, {})) for name in record}
    for name, (reference, expected, because) in asked.items():
        found = images.inspect(reference) if have_docker else None
        if found is None:
            pulled.append(name)
            if module.check_mode:
                pinned[name] = reference
                continue
            images.pull(reference)
            found = images.inspect(reference)
            if found is None:
                raise DigestError(
                    f"Image {reference} was pulled but the engine does not show it; look at `docker image ls`."
                )
        repo_digests, image_id = found
        registry_digest = pick_digest(reference, repo_digests)
        digest = registry_digest or image_id
        known = known_digests(record.get(name, {}))
        check(name, reference, digest, expected, known.get(reference), because)
        digests[name] = digest
        if known.get(reference) == digest:
            deployed_before.append(name)
        pinned[name] = pin(reference, registry_digest)
        wanted[name] = recorded_as(known, reference, digest)
    is_recorded = not record_path or wanted == record
    changed = bool(pulled) or not is_recorded
    if not is_recorded and not module.check_mode:
        write_json(Path(record_path), wanted, mode=0o640)
    return {
        "changed": changed,
        "pinned": pinned,
        "digests": digests,
        "deployed_before": deployed_before,
        "pulled": pulled,
    }


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "dict", "required": True},
            "record": {"type": "path"},
            "pull_seconds": {"type": "int", "default": 1800},
            "stall_seconds": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    printable_module(module)
    wrong = [name for name in ("pull_seconds", "stall_seconds") if module.params[name] < 1]
    if wrong:
        module.fail_json(msg=f"{wrong[0]} is a number of seconds from 1 on, not {module.params[wrong[0]]}")
    try:
        result = run(module)
    except (DigestError, CoreError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

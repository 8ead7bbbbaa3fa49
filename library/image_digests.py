#!/usr/bin/python
"""Have container images on a host, each with a digest that is known and stays the same."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_digests
short_description: Pull images that are missing and hold them to their first digest
description:
  - Pulls each image that the host does not have, with C(docker pull).
  - Compares its registry digest with the expected one, when one is given, and with the one that O(record) kept from the first run for the
    same reference. A difference fails before anything is written.
  - An image without a registry digest (loaded from a file) is held by its image id.
  - The digests of earlier references of an image stay in the record (C(earlier)), so that an old tag that is set again is held to its own.
options:
  images:
    description: Name of each image to its C(reference) (repository and tag) and optionally C(expected) (C(sha256:) and 64 hex digits).
    type: dict
    required: true
  record:
    description: JSON file on the host that keeps the digests; written when a reference is new in it.
    type: path
    required: true
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
pulled:
  description: Names of the images that were pulled (check mode, would be).
  returned: always
  type: list
"""

import json
import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


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


def wishes(images: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Each name to (reference, expected digest or ""); DigestError for what cannot be one."""
    found: dict[str, tuple[str, str]] = {}
    for name, spec in images.items():
        reference = spec.get("reference") if isinstance(spec, dict) else None
        if not isinstance(reference, str) or not reference:
            raise DigestError(f"Image {name} needs a reference, repository and tag; nothing was changed.")
        expected = spec.get("expected") or ""
        if expected and not DIGEST.fullmatch(str(expected)):
            raise DigestError(
                f"The expected digest of {name} must be sha256: and 64 hex digits, not {expected!r}; nothing was changed."
            )
        found[name] = (reference, expected)
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


def check(name: str, reference: str, digest: str, expected: str, recorded: str | None) -> None:
    """Raise DigestError when the digest is not the expected or not the recorded one."""
    if expected and digest != expected:
        raise DigestError(
            f"Image {reference} has digest {digest}, but {expected} is expected; nothing was changed. Check the tag and the pin of {name}."
        )
    if recorded and digest != recorded:
        raise DigestError(
            f"Image {reference} has digest {digest}, but the first deploy on this host had {recorded}: the tag was moved. "
            "Nothing was changed. Pin the digest that you trust, or give a new version."
        )


class Images:
    """The host's images through the docker command."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def inspect(self, reference: str) -> tuple[list[str], str] | None:
        """(registry digests, image id), or None when the host does not have it."""
        code, out, _ = self.module.run_command(["docker", "image", "inspect", reference])
        if code:
            return None
        found = json.loads(out)[0]
        return list(found.get("RepoDigests") or []), str(found["Id"])

    def pull(self, reference: str) -> None:
        """Pull; DigestError with the engine's reason when that fails."""
        code, _, err = self.module.run_command(["docker", "pull", "--quiet", reference])
        if code:
            reason = err.strip().splitlines()[-1:] or ["no reason given"]
            raise DigestError(
                f"Image {reference} could not be pulled: {reason[0]} Check the name, the registry and the network; nothing was changed."
            )


def run(module: AnsibleModule) -> dict[str, Any]:
    """Pull, compare, record; the module's result."""
    record_path = module.params["record"]
    asked = wishes(module.params["images"])
    record = read_record(record_path)
    images = Images(module)
    have_docker = module.get_bin_path("docker") is not None
    if not have_docker and not module.check_mode:
        raise DigestError(
            "The docker command is not installed on this host; run playbooks/phase0_prepare.yml first."
        )
    pinned: dict[str, str] = {}
    pulled: list[str] = []
    wanted = {name: dict(record.get(name, {})) for name in record}
    for name, (reference, expected) in asked.items():
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
        check(name, reference, digest, expected, known.get(reference))
        pinned[name] = pin(reference, registry_digest)
        wanted[name] = recorded_as(known, reference, digest)
    changed = bool(pulled) or wanted != record
    if wanted != record and not module.check_mode:
        part = record_path + ".part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(wanted, file, indent=1, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o640)
        os.replace(part, record_path)
    return {"changed": changed, "pinned": pinned, "pulled": pulled}


def main() -> None:
    """Entry point of Ansible."""
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "dict", "required": True},
            "record": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except DigestError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()

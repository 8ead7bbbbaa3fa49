"""The GlitchTip under test: the stand-in, or the image that GLITCHTIP_IMAGE names.

``GLITCHTIP_IMAGE`` is an image in the local engine, ``GLITCHTIP_VERSION`` the version that it holds (``5.2.0``): its name says
nothing certain. Where a public registry answers and no image is given, the published images are used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from contract import lines

from rig import images
from rig.shell import RigError, run

#: Repository of a given image in the rig's registry.
GIVEN = "given/glitchtip"
STANDIN = "standin/glitchtip"


@dataclass(frozen=True)
class Subject:
    """One GlitchTip: its image in the local engine, the version that roles are given, its line ("5.2", "6.2")."""

    image: str
    version: str
    line: str
    given: bool = False

    @property
    def repository(self) -> str:
        """Where the rig's registry has it."""
        return GIVEN if self.given else STANDIN

    @property
    def name(self) -> str:
        """What tables and artifacts call it: ``stand-in``, or the image as it was given."""
        return self.image if self.given else "stand-in"


def parse(environment: Mapping[str, str]) -> Subject | None:
    """The image that the environment names, or None.

    Raises:
        RigError: one of the two variables is missing, or the version is not a full one of a line that is supported.
    """
    image, version = environment.get("GLITCHTIP_IMAGE", ""), environment.get("GLITCHTIP_VERSION", "")
    if not image and not version:
        return None
    if not image or not version:
        missing = "GLITCHTIP_VERSION" if image else "GLITCHTIP_IMAGE"
        raise RigError(
            f"{missing} is missing: give both, as in `make demo GLITCHTIP_IMAGE=glitchtip:5.2 GLITCHTIP_VERSION=5.2.0`."
        )
    try:
        line = lines.of_version(version) if re.fullmatch(r"v?\d+\.\d+\.\d+", version) else None
    except ValueError:
        line = None
    if line is None:
        known = ", ".join(sorted(short for versions in lines.LINES.values() for short in versions))
        raise RigError(f"GLITCHTIP_VERSION={version} is not a full version (x.y.z) of {known}.")
    return Subject(image, version, line, given=True)


@cache
def given() -> Subject | None:
    """The image that this process was given, or None.

    Raises:
        RigError: as :func:`parse`, or the local engine does not have the image.
    """
    found = parse(os.environ)
    if found and run(["docker", "image", "inspect", found.image], check=False).returncode:
        raise RigError(
            f"GLITCHTIP_IMAGE={found.image}: the local engine has no such image; `docker images` lists what it has."
        )
    return found


def of_line(line: str) -> Subject:
    """The GlitchTip of this line: the given image if it is of the line, else the stand-in."""
    found = given()
    if found and found.line == line:
        return found
    return Subject(images.tag(f"standin-{line}"), images.GLITCHTIP_LINES[line], line)


def standins() -> list[str]:
    """Names of the stand-ins' images for ``images.build_all``."""
    return [f"standin-{line}" for line in images.GLITCHTIP_LINES]


def content(subject: Subject) -> str:
    """A short tag for the image's content: another one for other content."""
    if not subject.given:
        return subject.image.rsplit(":", 1)[1]
    found = run(["docker", "image", "inspect", "-f", "{{.Id}}", subject.image]).stdout.strip()
    return found.removeprefix("sha256:")[:12]

"""Is the image that phase 2 deploys the one that phase 1 tested?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def untested_image(evidence: Mapping[str, Any], reference: str, digest: str = "") -> str:
    """Why phase 1's test says nothing about an image, in one sentence; empty where it was that image.

    ``evidence``: what phase 1 recorded (``image``, ``digest``). ``digest`` is that of the image on the host now, empty where the
    host does not have it. Evidence of an earlier version of this product names no digest; then the names decide.
    """
    tested, its_digest = str(evidence.get("image") or ""), str(evidence.get("digest") or "")
    if not tested:
        return f"The evidence of phase 1 does not say which image was tested; this phase would deploy {reference}."
    if tested != reference:
        return f"Phase 1 tested the image {tested}, and this phase would deploy {reference}."
    if its_digest and digest and its_digest != digest:
        return f"Phase 1 tested {tested} with the digest {its_digest}, and that name is {digest} on this host now."
    return ""


class FilterModule:
    """The filter for playbooks."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"untested_image": untested_image}

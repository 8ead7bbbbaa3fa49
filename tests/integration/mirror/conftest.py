"""A real nginx with the product's own configuration, between scripted trackers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from integration.mirror.bed import NGINX, Bed


@pytest.fixture
def bed() -> Iterator[Bed]:
    """An empty bed; it starts what a test puts into it, and stops all of it."""
    assert shutil.which(NGINX), "nginx is not installed; run make setup"
    with Bed() as made:
        yield made

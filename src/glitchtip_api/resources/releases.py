"""Releases of an organization."""

from __future__ import annotations

from .base import Resource


class Releases(Resource):
    """Releases of an organization."""

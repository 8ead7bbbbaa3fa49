"""Environments of an organization or a project."""

from __future__ import annotations

from .base import Resource


class Environments(Resource):
    """Environments of an organization or a project."""

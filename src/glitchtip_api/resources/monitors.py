"""Uptime monitors of an organization, their checks and heartbeats."""

from __future__ import annotations

from .base import Resource


class Monitors(Resource):
    """Uptime monitors of an organization, their checks and heartbeats."""

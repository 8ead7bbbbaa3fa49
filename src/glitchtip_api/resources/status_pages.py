"""Status pages of an organization."""

from __future__ import annotations

from .base import Resource


class StatusPages(Resource):
    """Status pages of an organization."""

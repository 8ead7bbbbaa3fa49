"""Members and invitations of an organization."""

from __future__ import annotations

from .base import Resource


class Members(Resource):
    """Members and invitations of an organization."""

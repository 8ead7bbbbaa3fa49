"""Counts of events over time."""

from __future__ import annotations

from .base import Resource


class Statistics(Resource):
    """Counts of events over time."""

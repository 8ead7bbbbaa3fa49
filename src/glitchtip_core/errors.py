"""The error of this package; callers turn it into their own."""

from __future__ import annotations


class CoreError(Exception):
    """What is wrong, where, and what to do, in one sentence without secrets."""

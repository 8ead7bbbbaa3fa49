"""The structure as an Ansible argument specification: types and defaults of every entry.

Kinds of recipients and monitors are checked with the rest of their entry, so that the message names its place.
"""

from __future__ import annotations

from typing import Any

from ..resources.members import ROLES
from .structure import KINDS

_LEFT_OUT: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "kind": {"type": "str", "required": True, "choices": list(KINDS)},
        "name": {"type": "str", "default": ""},
        "id": {"type": "str"},
        "why": {"type": "str"},
    },
}
_CONFIG: dict[str, Any] = {
    "bot_email": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "channel": {"type": "str"},
    "topic": {"type": "str"},
}
_RECIPIENT: dict[str, Any] = {
    "type": {"type": "str", "required": True},
    "url": {"type": "str", "no_log": True},
    "config": {"type": "dict", "options": _CONFIG},
    "tags": {"type": "list", "elements": "str"},
}
_ALERT: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "quantity": {"type": "int"},
    "timespan_minutes": {"type": "int"},
    "uptime": {"type": "bool"},
    "recipients": {"type": "list", "elements": "dict", "options": _RECIPIENT},
    "incomplete": {"type": "bool", "default": False},
}
_PROJECT: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "slug": {"type": "str"},
    "platform": {"type": "str"},
    "event_throttle_rate": {"type": "int"},
    "teams": {"type": "list", "elements": "str"},
    "keys": {"type": "list", "elements": "str", "no_log": False},  # names of keys
    "alerts": {"type": "list", "elements": "dict", "options": _ALERT},
    "left_out": _LEFT_OUT,
}
_MEMBER: dict[str, Any] = {
    "email": {"type": "str", "required": True},
    "role": {"type": "str", "choices": list(ROLES), "default": "member"},
    "teams": {"type": "list", "elements": "str"},
}
_MONITOR: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "required": True},
    "url": {"type": "str"},
    "project": {"type": "str"},
    "interval": {"type": "int"},
    "timeout": {"type": "int"},
    "expected_status": {"type": "int"},
    "expected_body": {"type": "str"},
}
_STATUS_PAGE: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "public": {"type": "bool"},
}
ORGANIZATION: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "teams": {"type": "list", "elements": "str"},
    "members": {"type": "list", "elements": "dict", "options": _MEMBER},
    "projects": {"type": "list", "elements": "dict", "options": _PROJECT},
    "monitors": {"type": "list", "elements": "dict", "options": _MONITOR},
    "status_pages": {"type": "list", "elements": "dict", "options": _STATUS_PAGE},
    "left_out": _LEFT_OUT,
}
ORGANIZATIONS: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": ORGANIZATION,
}

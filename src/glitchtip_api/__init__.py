"""One client of the HTTP API that GlitchTip and Sentry share.

The Ansible modules in ``library/`` and the operator tools both use it. Only relative imports inside, so that
Ansible can bundle the package as ``ansible.module_utils.glitchtip_api``.

Facts about the server in docstrings were measured on the GlitchTip 5.2 line; where 6.x differs it is said.
"""

from __future__ import annotations

from .answers import Response
from .client import Client
from .dsn import Dsn, parse_dsn
from .errors import (
    AmbiguousError,
    GlitchTipError,
    MissingError,
    NotJsonError,
    ReadOnlyError,
    UnreachableError,
)

__all__ = [
    "AmbiguousError",
    "Client",
    "Dsn",
    "GlitchTipError",
    "MissingError",
    "NotJsonError",
    "ReadOnlyError",
    "Response",
    "UnreachableError",
    "parse_dsn",
]

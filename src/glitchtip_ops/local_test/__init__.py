"""``glitchtip-ops local-test``: what real SDKs send is read back from a GlitchTip, field by field.

Five SDK scenarios and five production patterns by the product's own ``@sentry/node`` and by ``sentry-sdk`` for
Python, one error repeated that must be grouped, bursts that must arrive whole while the memory of the stack is
watched, and an uptime monitor that goes down, alerts, comes back and alerts. Against a stack of this host or any
server with a DSN and an API.

:mod:`.expectations` what must be kept, :mod:`.judging` whether it was, :mod:`.sending` the SDKs' processes,
:mod:`.reading` the API, :mod:`.memory` the sampler, :mod:`.uptime` the monitor, :mod:`.target` what is tested and
with which limits, :mod:`.running` one run, :mod:`.report` its document for people, :mod:`.command` the command line.
"""

from __future__ import annotations

from .command import register

__all__ = ["register"]

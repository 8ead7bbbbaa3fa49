"""Tools that run on the server, behind the command ``glitchtip-ops``.

Local test, soak, backups with proof, monitoring.
"""

from glitchtip_api import connections
from glitchtip_core.listener import stranger

# Every request of every command passes there: no token to whoever took GlitchTip's port on this host.
connections.guard = stranger

"""Tools that run on the server, behind the command ``glitchtip-ops``.

Local test, soak, backups with proof, monitoring.
"""

"""The operator tools that run on the server: local test, soak, backups with proof, monitoring. One command, ``glitchtip-ops``."""

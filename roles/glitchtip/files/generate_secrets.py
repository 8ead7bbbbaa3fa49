#!/usr/bin/python3 -I
"""Write the stack's secrets to the file named by the only argument: created with mode 600, never overwritten, nothing printed."""

import os
import secrets
import sys

lines = {
    "SECRET_KEY": secrets.token_hex(32),
    "POSTGRES_PASSWORD": secrets.token_hex(16),
    "SUPERUSER_PASSWORD": secrets.token_urlsafe(24),
}
part = sys.argv[1] + ".part"
descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
with os.fdopen(descriptor, "w") as file:
    file.write("".join(f"{name}={value}\n" for name, value in lines.items()))
    file.flush()
    os.fsync(file.fileno())
os.link(part, sys.argv[1])
os.unlink(part)

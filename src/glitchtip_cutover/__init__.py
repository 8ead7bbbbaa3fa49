"""Switch of a product's DSN from one error tracker to another: one journalled transaction on the host.

Standard library only: the way back has to work with nothing but the system's Python, without a virtual
environment, a network or a controller. It is shipped as one zipapp and run by ``/usr/bin/python3 -I`` as
root.
"""

from __future__ import annotations

__version__ = "1.0.0"

if __name__ == "ansible.module_utils.glitchtip_cutover":
    # Sent along with a module of Ansible, where the shared package is beside this one and not found by its own name.
    import sys

    from ansible.module_utils.glitchtip_core import errors, http, json_text, listener, pm2, pm2_list, process

    for _part in (
        sys.modules[errors.__name__.rpartition(".")[0]],
        errors,
        http,
        json_text,
        process,
        pm2_list,
        pm2,
        listener,
    ):
        sys.modules.setdefault(_part.__name__.removeprefix("ansible.module_utils."), _part)

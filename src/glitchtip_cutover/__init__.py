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

    # Named one by one: that is how Ansible finds what to send along.
    from ansible.module_utils.glitchtip_core import (  # noqa: F401
        allowed_listeners,
        cgroups,
        clock,
        dsn,
        errors,
        files,
        foreign_files,
        foreign_paths,
        foreign_search,
        http,
        json_text,
        listener,
        memory,
        pm2,
        pm2_list,
        process,
        switch,
        text,
    )
    from ansible.module_utils.glitchtip_core.notify import (  # noqa: F401
        fields,
        messages,
        notifier,
        settings,
        throttle,
        transport,
    )
    from ansible.module_utils.glitchtip_core.notify.transports import (  # noqa: F401
        discord,
        email,
        slack,
        telegram,
        webhook,
    )
    from ansible.module_utils.glitchtip_core.transaction import (  # noqa: F401
        bookkeeping,
        containment,
        contract,
        detached,
        journal,
        limits,
        reserve,
        state,
        store,
    )
    from ansible.module_utils.glitchtip_core.transaction import transaction as _transaction  # noqa: F401

    for _name, _part in list(sys.modules.items()):
        if f"{_name}.".startswith("ansible.module_utils.glitchtip_core."):
            sys.modules.setdefault(_name.removeprefix("ansible.module_utils."), _part)

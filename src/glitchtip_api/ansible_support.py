"""What the Ansible modules share: options, check mode on a bare host, one way to succeed and one to fail.

Only the modules in ``library/`` import this file; everything else works without Ansible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Sent along with each module; the rest of this package imports nothing of the others.
from ansible.module_utils.glitchtip_core.listener import stranger

from .client import Client
from .ensure.outcome import Outcome, masked
from .errors import GlitchTipError, MissingError, UnreachableError, printable, printable_lines
from .transport import Options, connections

# Every request of every module passes there: no token or password to whoever took GlitchTip's port on that host.
if connections is not None:
    connections.guard = stranger

TLS: dict[str, Any] = {
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
}
SERVER: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 30},
    **TLS,
}
CONNECTION: dict[str, Any] = {**SERVER, "token": {"type": "str", "no_log": True}}
STATE: dict[str, Any] = {"state": {"type": "str", "choices": ["present", "absent"], "default": "present"}}

Params = Mapping[str, Any]


def transport_options(module: Any) -> Options:
    """How the server is asked for a module: its time-out and certificates, read only in check mode.

    Without a rate limit: a module makes one stream of requests, and the play waits for it.
    """
    params = module.params
    return {
        "timeout": (5, params["timeout"]),
        "ca_path": params["ca_path"],
        "validate_certs": params["validate_certs"],
        "read_only": bool(module.check_mode),
        "per_second": None,
    }


def client_for(module: Any, *, needs_token: bool = True, concurrent: int = 2) -> Client:
    """The client for a module's options. In check mode it refuses to write, whatever the module does.

    `concurrent` bounds how many requests are under way at once.

    Raises MissingError when a token is needed and none was given.
    """
    params = module.params
    token = params["token"] or None
    if needs_token and token is None:
        raise MissingError(code="no_token", detail="no API token was given")
    options = transport_options(module)
    options["concurrent"] = concurrent
    return Client(params["url"], token, **options)


def not_there_yet(module: Any, error: GlitchTipError) -> bool:
    """True in check mode when something that an earlier step makes is missing.

    That is the server itself (nobody listens, no Python library yet), the token, or a parent object.
    """
    if not module.check_mode:
        return False
    if isinstance(error, UnreachableError):
        return error.code in ("refused", "no_requests")
    return isinstance(error, MissingError)


#: Lists of sentences and plans among results; objects stay as the server has them.
_SENTENCES = frozenset({"plan_text", "unmanaged", "complaints", "applied", "failed", "pending", "remaining", "left_out"})


def printable_sentences(module: Any) -> Any:
    """The same module, whose messages, warnings, plans and prepared differences act on no terminal: names are others' choice."""
    leave, fail_json, warn = module.exit_json, module.fail_json, module.warn
    module.exit_json = lambda **result: leave(**_for_people(result))
    module.fail_json = lambda **result: fail_json(**_for_people(result))
    module.warn = lambda warning: warn(printable(warning))
    return module


def _for_people(result: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(result)
    for name in _SENTENCES & shown.keys():
        if isinstance(shown[name], list | tuple):
            shown[name] = [printable(one) if isinstance(one, str) else one for one in shown[name]]
    if isinstance(shown.get("msg"), str):
        shown["msg"] = printable(shown["msg"])
    diff = shown.get("diff")
    if isinstance(diff, dict) and isinstance(diff.get("prepared"), str):
        shown["diff"] = {**diff, "prepared": printable_lines(diff["prepared"])}
    return shown


def fail(module: Any, error: GlitchTipError) -> None:
    """End the module with one sentence, and the parts of the failure under `failure`."""
    module.fail_json(msg=str(error), failure=error.as_dict())


def run(
    result: str,
    options: Mapping[str, Any],
    ensure: Callable[[Client, Params, bool], Outcome],
    predict: Callable[[Params], Mapping[str, Any]],
    *,
    returned: Callable[[Any], Any] = dict,
) -> None:
    """Run a module that keeps one object as declared. A server that is too old is refused before anything.

    Args:
        result: the name under which the object is returned.
        options: the module's own options; those of `CONNECTION` and `STATE` come with it.
        ensure: called with the client, the options and whether to only predict.
        predict: the object that would exist, where the server cannot be asked yet (check mode).
        returned: what of the object is returned; the default is all of it.
    """
    module = printable_sentences(
        AnsibleModule(argument_spec={**CONNECTION, **STATE, **options}, supports_check_mode=True)
    )
    message = ""
    newer = None
    try:
        with client_for(module) as client:
            newer = client.require()
            outcome = ensure(client, module.params, bool(module.check_mode))
    except GlitchTipError as error:
        if not not_there_yet(module, error):
            fail(module, error)
        present = module.params["state"] == "present"
        outcome = Outcome(present, None, predict(module.params) if present else None, predicted=True)
        message = _explain(module.params["url"], error, present)
    for warning in (*outcome.warnings, *([newer] if newer else [])):
        module.warn(warning)
    extra: dict[str, Any] = {"msg": message} if message else {}
    if outcome.changed:
        extra["diff"] = outcome.diff()
    module.exit_json(
        changed=outcome.changed,
        predicted=outcome.predicted,
        **{result: None if outcome.after is None else returned(outcome.after)},
        **extra,
    )


def without_addresses(thing: Any) -> Any:
    """An object without its secrets and without the paths of webhook addresses, which often hold one."""
    return masked(thing)


def _explain(url: str, error: GlitchTipError, present: bool) -> str:
    what = "would be created" if present else "nothing to remove"
    if isinstance(error, UnreachableError):
        return f"the server at {url} is not there yet: {what}"
    return f"{error.detail}: {what}"

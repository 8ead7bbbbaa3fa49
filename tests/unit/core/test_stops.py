"""A stop (a signal, a time limit) passes every handler of the core that continues after an error."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unit.core.product import ROOT

from glitchtip_core import listener, pm2
from glitchtip_core.errors import CoreError, InterruptedRunError, StepTooLongError, StoppedError

CORE = ROOT / "src/glitchtip_core"
#: It reports a stop like any failure; `announce` of the switch checks the limit itself.
GOES_ON = {"notify/notifier.py"}


def _names(node: ast.AST | None) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} if node else set()


def swallowing(source: str) -> Iterator[int]:
    """Lines of handlers that catch CoreError, do not raise the very error again, and let no StoppedError pass before."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and "CoreError" in _names(node):
            yield node.lineno
        if not isinstance(node, ast.Try):
            continue
        passed = False
        for handler in node.handlers:
            again = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
            if "StoppedError" in _names(handler.type) and again:
                passed = True
            if "CoreError" in _names(handler.type) and not again and not passed:
                yield handler.lineno


def test_every_handler_of_the_core_lets_a_stop_pass() -> None:
    """Those of the transaction itself take a change back: there a stop is a reason like others."""
    files = {path.relative_to(CORE).as_posix(): path for path in CORE.rglob("*.py")}
    found = {
        name: lines
        for name, path in files.items()
        if not name.startswith("transaction/") and (lines := list(swallowing(path.read_text())))
    }
    assert found.keys() == GOES_ON, found


@pytest.mark.parametrize(
    "source",
    [
        "try: f()\nexcept CoreError: pass",
        "try: f()\nexcept (OSError, CoreError) as e:\n  raise X(e) from None",
        "with contextlib.suppress(CoreError): f()",
        "try: f()\nexcept CoreError: pass\nexcept StoppedError: raise",
    ],
)
def test_a_handler_that_goes_on_is_noticed(source: str) -> None:
    """The control."""
    assert list(swallowing(source)) != []


@pytest.mark.parametrize("kind", [InterruptedRunError, StepTooLongError])
def test_a_stop_while_docker_or_pm2_is_asked_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[StoppedError]
) -> None:
    def failing(error: Exception) -> Callable[..., None]:
        def fail(*_: object, **__: object) -> None:
            raise error

        return fail

    access = pm2.Access("root", tmp_path / "pm2", tmp_path, None)
    for error, passes in ((kind("stop"), True), (CoreError("no"), False)):
        monkeypatch.setattr(listener, "_docker", failing(error))
        with pytest.raises(kind if passes else listener.ListenerError):
            listener.require_container(8080)
        monkeypatch.setattr(pm2, "find_node", failing(error))
        if passes:
            with pytest.raises(kind):
                pm2.environment(access)
        else:
            assert pm2.environment(access)["HOME"]

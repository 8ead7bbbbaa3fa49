"""Commands to Valkey (or Redis) inside its container, each with a time limit.

Answers of scripts travel as JSON, entries of lists as hexadecimal text: GlitchTip 6.x stores compressed, hence
binary, entries, and the command line tools print those in ways that depend on the version.
"""

from __future__ import annotations

import json
from typing import Any

from ..docker_stack import Container, Stack
from ..process import OpsError

SERVICE = "valkey"
#: The official Valkey image has the first name, Redis images the second, Valkey packages often both.
_TOOLS = ("valkey-cli", "redis-cli")
#: Lua: the bytes of a string as hexadecimal text.
HEX = (
    "local function hex(s) return (s:gsub('.', function(c) return string.format('%02x', c:byte()) end)) end\n"
)


class Valkey:
    """The queue's server. Every method raises OpsError when it does not answer."""

    def __init__(self, stack: Stack, container: Container) -> None:
        self.stack = stack
        self.container = container
        self._tool = ""

    def call(self, *argv: str) -> str:
        """What the command line tool prints for one command. Raises OpsError when there is no such tool."""
        if self._tool:
            return self.stack.execute(self.container, [self._tool, "--raw", *argv])
        missing: OpsError | None = None
        for tool in _TOOLS:
            try:
                answer = self.stack.execute(self.container, [tool, "--raw", *argv])
            except OpsError as error:
                if not _is_missing_program(str(error)):
                    raise
                missing = error
                continue
            self._tool = tool
            return answer
        raise OpsError(f"container {self.container.name} has neither {' nor '.join(_TOOLS)}: {missing}")

    def tool(self) -> str:
        """Name of the command line tool in the container. Raises OpsError when there is none."""
        if not self._tool:
            self.call("PING")
        return self._tool

    def evaluate(self, script: str, *arguments: str) -> Any:
        """What a Lua script answers; it must end with ``return cjson.encode(...)``.

        Raises OpsError with the server's message when the script fails.
        """
        text = self.call("EVAL", script, "0", *arguments).strip()
        try:
            return json.loads(text)
        except ValueError:
            raise OpsError(f"{self.container.name} refused a command: {text[:200] or 'no answer'}") from None


def _is_missing_program(message: str) -> bool:
    """Whether ``docker exec`` failed because the program is not in the image (exit code 127)."""
    return "executable file not found" in message or "no such file or directory" in message


def open_valkey(stack: Stack) -> Valkey:
    """The running Valkey of the stack. Raises OpsError when there is none."""
    return Valkey(stack, stack.container(SERVICE))

"""The processes in which the real SDKs capture: one protocol for Node.js and Python (scenarios.cjs tells it)."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from glitchtip_api.errors import scrub
from glitchtip_core.foreign_files import is_file

from ..process import OpsError, run
from .judging import Raised, accepted

_TIMEOUT = 200.0
SDKS = ("node", "python")


@dataclass(frozen=True)
class Sent:
    """What an SDK's process told. Times are wall seconds; an id without a status was never answered.

    Attributes:
        at: when each event was captured, by id.
        status: how it was answered, None for no answer.
        answered: when.
        raised: where its error was raised: file, function, line.
        complete: the SDK says that it handed everything over in time.
    """

    sdk: str = ""
    version: str = ""
    at: Mapping[str, float] = field(default_factory=dict)
    status: Mapping[str, int | None] = field(default_factory=dict)
    answered: Mapping[str, float] = field(default_factory=dict)
    raised: Mapping[str, Raised] = field(default_factory=dict)
    profiles: int = 0
    transaction_status: int | None = None
    complete: bool = True

    @property
    def accepted(self) -> int:
        """Number of events that the tracker answered with 2xx."""
        return sum(accepted(self.status.get(event_id)) for event_id in self.at)


def parse_output(text: str, script: str = "") -> Sent:
    """Read what a sender printed; ``script`` is its source, from which lines are quoted.

    Raises OpsError when that is not what it prints.
    """
    at: dict[str, float] = {}
    status: dict[str, int | None] = {}
    answered: dict[str, float] = {}
    raised: dict[str, Raised] = {}
    who: dict[str, Any] = {}
    totals: dict[str, Any] = {}
    source = script.splitlines()
    try:
        for line in text.splitlines():
            document = json.loads(line)
            if "sdk" in document:
                who = document
            elif "sent_at" in document:
                at[document["event_id"]] = document["sent_at"] / 1000
            elif "raised" in document:
                where = document["raised"]
                number = int(where["line"])
                quoted = source[number - 1].strip() if 0 < number <= len(source) else ""
                raised[document["event_id"]] = Raised(where["file"], where["function"], number, quoted)
            elif "status" in document:
                status[document["event_id"]] = document["status"]
                answered[document["event_id"]] = document["answered_at"] / 1000
            else:
                totals = document
        return Sent(
            str(who["sdk"]),
            str(who["version"]),
            at,
            status,
            answered,
            raised,
            int(totals["profiles"]),
            totals["transaction_status"],
            bool(totals["complete"]),
        )
    except (ValueError, KeyError, TypeError):
        raise OpsError("the script of the local test printed something else than its lines of JSON") from None


Items = Sequence[Mapping[str, str]]


class Sender(Protocol):
    """One SDK."""

    @property
    def name(self) -> str:
        """``node`` or ``python``: the tag on its events."""

    def check(self) -> None:
        """Raise OpsError, in one sentence, when it cannot send from here."""

    def send(self, items: Items, burst: Sequence[str]) -> Sent:
        """Capture scenarios (``{"scenario", "event_id"}``) and a burst of ids. Raises OpsError."""


@dataclass(frozen=True)
class _Script:
    """What both senders share: the script, where events go and which user runs it."""

    script: Path
    dsn: str = field(repr=False)
    user: str | None = None
    ca_path: str | None = None

    def _source(self) -> str:
        try:
            return self.script.read_text(encoding="utf-8")
        except OSError as error:
            raise OpsError(
                f"{self.script} cannot be read: {error.strerror}; roles/local_test/files has it."
            ) from None

    def _run(
        self,
        argv: Sequence[str],
        order: Mapping[str, Any],
        environment: Mapping[str, str],
        cwd: str,
        what: str,
    ) -> Sent:
        """Run the script from a copy that ``user`` may read. ``what`` names the SDK in a complaint."""
        source = self._source()
        with tempfile.TemporaryDirectory(prefix="local-test-") as directory:
            Path(directory).chmod(0o755)
            copy = Path(directory) / self.script.name
            shutil.copyfile(self.script, copy)
            copy.chmod(0o644)
            done = run(
                [*argv, str(copy)],
                timeout=_TIMEOUT,
                user=self.user,
                env={"LOCAL_TEST_DSN": self.dsn, **environment},
                stdin=json.dumps(order),
                cwd=cwd or directory,
            )
        if done.code:
            raise OpsError(f"{what} could not send the test errors: {scrub(done.reason, [self.dsn])}")
        return parse_output(done.stdout, source)


@dataclass(frozen=True)
class NodeSender(_Script):
    """``@sentry/node`` as the product in ``app_dir`` has it."""

    app_dir: Path = Path()
    node: str = "node"
    name: str = "node"

    def check(self) -> None:
        """Raise OpsError when the product, Node.js or the script is not there."""
        if not is_file(self.app_dir.absolute() / "package.json"):
            raise OpsError(
                f"{self.app_dir} is not the directory of a Node.js product (no package.json there): give the one that "
                "has @sentry/node in its node_modules."
            )
        if shutil.which(self.node) is None:
            raise OpsError(f"{self.node} is not a program here: give the Node.js that the product runs with.")
        self._source()

    def send(self, items: Items, burst: Sequence[str]) -> Sent:
        """See :class:`Sender`."""
        return self._run(
            [self.node],
            {"app_dir": str(self.app_dir.absolute()), "items": list(items), "burst": list(burst)},
            {"NODE_EXTRA_CA_CERTS": self.ca_path} if self.ca_path else {},
            str(self.app_dir),
            f"The product's SDK in {self.app_dir}",
        )


@dataclass(frozen=True)
class PythonSender(_Script):
    """``sentry-sdk`` of the Python ``python``."""

    python: str = sys.executable
    name: str = "python"

    def check(self) -> None:
        """Raise OpsError when Python or the script is not there."""
        if shutil.which(self.python) is None:
            raise OpsError(f"{self.python} is not a program here: give a Python that has sentry-sdk.")
        self._source()

    def send(self, items: Items, burst: Sequence[str]) -> Sent:
        """See :class:`Sender`."""
        bundle = self.ca_path or os.environ.get("REQUESTS_CA_BUNDLE")
        return self._run(
            [self.python, "-I"],  # nothing beside the script, or of the user's, may pass for a module
            {"items": list(items), "burst": list(burst)},
            {"SSL_CERT_FILE": bundle} if bundle else {},
            "",
            f"Sentry's SDK for Python ({self.python})",
        )

"""Sends a message to every target that wants it, all at once, within one time limit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CoreError
from ..text import calls_in
from .messages import Catalogue, Message, compose
from .settings import Settings, Target, load_settings
from .transport import NotSentError, clipped, try_twice
from .transports import TRANSPORTS


class Notifier:
    """Notifies people of what happens, as the file at ``path`` says; without a file it notifies nobody.

    ``catalogue``: what can be announced. ``clock`` gives the time of day, ``monotonic`` and ``sleep`` measure and wait,
    ``host`` is this host's name.
    """

    def __init__(
        self,
        path: Path | None,
        catalogue: Catalogue,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        host: str | None = None,
    ) -> None:
        self._path = path
        self._catalogue = catalogue
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._host = host or socket.gethostname()

    def settings(self) -> Settings:
        """The file as it is now. Raises CoreError when it is wrong."""
        return load_settings(self._path, self._catalogue)

    def preview(self, event: str, facts: Mapping[str, Any]) -> tuple[Message, list[Target]]:
        """What would be sent, and to whom. Raises CoreError for an unknown event or a wrong file."""
        _, message, targets = self._prepared(event, facts)
        return message, targets

    def _prepared(self, event: str, facts: Mapping[str, Any]) -> tuple[Settings, Message, list[Target]]:
        catalogue = self._catalogue
        if event not in catalogue.templates:
            raise CoreError(f"there is no event {event} to tell, only {', '.join(catalogue.events)}")
        settings = self.settings()
        template = settings.templates.get(event) or catalogue.templates[event]
        ours = {
            "product": settings.product,
            "host": self._host,
            "contact": settings.contact or catalogue.contact,
        }
        message = compose(template, event, facts, ours, catalogue, self._clock())
        own = f"{settings.contact}\n{settings.templates.get(event, '')}"
        message = replace(message, calls=calls_in(own))
        return settings, message, [target for target in settings.targets if event in target.events]

    def send(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        """Notify every target that wants this event, all at once; returns a sentence for each that was not reached.

        Takes no longer than the file's ``timeout``, never raises, and no sentence holds a secret.
        """
        try:
            return self._send(event, facts)
        except CoreError as error:
            return [str(error)]
        except Exception as error:
            return [f"nobody was told: unexpected {type(error).__name__}"]

    def _send(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        settings, message, targets = self._prepared(event, facts)
        deadline = self._monotonic() + settings.timeout
        outcomes: dict[str, str] = {}

        def work(target: Target) -> None:
            try:
                self._deliver(target, message, deadline)
                outcomes[target.name] = ""
            except NotSentError as error:
                outcomes[target.name] = str(error)
            except Exception as error:
                outcomes[target.name] = f"was not told: unexpected {type(error).__name__}"

        threads = [threading.Thread(target=work, args=(target,), daemon=True) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - self._monotonic()))
        problems = []
        for target in targets:
            if reason := outcomes.get(target.name, "did not answer in time"):
                sentence = f"{target.name} ({target.kind}) {reason}"
                for secret in target.secrets():
                    sentence = sentence.replace(secret, "***")
                problems.append(sentence)
        return problems

    def _deliver(self, target: Target, message: Message, deadline: float) -> None:
        transport = TRANSPORTS[target.kind]
        text = clipped(message.text, transport, message.calls)
        try_twice(
            lambda left: transport.send(target.options, message, text, self._host, left),
            deadline,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )

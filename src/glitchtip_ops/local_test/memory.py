"""The memory of the stack while it works: a thread that samples until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ..process import OpsError

_MIB = 1024**2
_PAUSE = 1.0


class Sampler:
    """Samples ``measure`` (bytes) in a thread, within a ``with`` block.

    ``peak`` is the largest sample in MiB, ``samples`` their number; a measurement that fails ends the sampling and is
    told as ``trouble``.
    """

    def __init__(self, measure: Callable[[], int], pause: float = _PAUSE) -> None:
        self._measure = measure
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak = 0.0
        self.samples = 0
        self.trouble = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            try:
                self.peak = max(self.peak, self._measure() / _MIB)
            except OpsError as error:
                self.trouble = str(error)
                return
            self.samples += 1
            if self._stop.wait(self._pause):
                return

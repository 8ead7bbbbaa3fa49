"""Measured time: slices with a cap, and limits that end a wait in a system call."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from glitchtip_core.clock import WatchedTime, time_limit


class TooLongError(Exception):
    pass


class OuterError(Exception):
    pass


def test_watched_time_is_the_sum_of_its_slices() -> None:
    now = [100.0]
    watched = WatchedTime(lambda: now[0], cap=60, seconds=5.0)
    for step in (10.0, 20.0, 3600.0, -50.0):  # a machine that slept; a clock that is not monotonic
        now[0] += step
        watched.tick()
    assert watched.seconds == 5 + 10 + 20 + 60
    now[0] += 30
    watched.skip()
    assert watched.tick() == 95


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_senseless_earlier_seconds_count_nothing(seconds: float) -> None:
    assert WatchedTime(lambda: 0.0, 1, seconds).seconds == 0


def test_a_limit_ends_a_wait_in_a_system_call() -> None:
    reader, writer = os.pipe()
    began = time.monotonic()
    with pytest.raises(TooLongError), time_limit(0.1, TooLongError):
        os.read(reader, 1)  # nobody writes
    assert time.monotonic() - began < 30
    os.close(reader)
    os.close(writer)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_block_within_its_limit_is_left_alone() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with time_limit(60, TooLongError):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is handler


def test_the_shorter_of_two_limits_holds_and_the_outer_one_goes_on() -> None:
    with pytest.raises(OuterError), time_limit(0.2, OuterError), time_limit(60, TooLongError):
        time.sleep(30)
    with pytest.raises(OuterError), time_limit(0.5, OuterError):
        one_after_the_other()


def one_after_the_other() -> None:
    with pytest.raises(TooLongError), time_limit(0.1, TooLongError):
        time.sleep(30)
    time.sleep(30)


def test_another_thread_has_no_limit() -> None:
    ended: list[bool] = []

    def work() -> None:
        with time_limit(0.01, TooLongError):
            time.sleep(0.1)
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]

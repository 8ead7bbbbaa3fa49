"""How often the server is asked, how many at a time, and when it is left alone."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from glitchtip_api import Client, GlitchTipError, UnreachableError
from glitchtip_api.limits import CircuitBreaker, CircuitOpen, Limiter, Verdict

UP, DOWN, UNKNOWN = Verdict.UP, Verdict.DOWN, Verdict.UNKNOWN


class Clock:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def starts(limiter, clock, count):
    """When each of `count` requests began."""
    found = []
    for _ in range(count):
        limiter.pace()
        found.append(clock.now)
    return found


def most_in(window, times):
    """The largest number of `times` within any `window` seconds (half open)."""
    return max(sum(1 for other in times if 0 <= other - time < window) for time in times)


# --- pace -------------------------------------------------------------------------------------------------


def test_ten_requests_go_at_once_and_the_eleventh_waits_for_its_second(clock):
    times = starts(Limiter(10, clock=clock, sleep=clock.sleep), clock, 11)
    assert times == [1000.0] * 10 + [1001.0]


@pytest.mark.parametrize("seed", range(25))
def test_no_second_and_no_minute_holds_more_requests_than_allowed(seed):
    chance, clock = random.Random(seed), Clock()
    second, minute = chance.randint(1, 12), chance.randint(1, 40)
    limiter = Limiter(second, minute, clock=clock, sleep=clock.sleep)
    times = []
    for _ in range(120):
        clock.now += chance.choice([0, 0, 0, 0.01, 0.3, 1.0, 20.0])
        limiter.pace()
        times.append(clock.now)
    assert most_in(1.0 - 1e-6, times) <= second
    assert most_in(60.0 - 1e-6, times) <= minute


def test_waiting_is_no_longer_than_the_limit_asks(clock):
    times = starts(Limiter(2, 4, clock=clock, sleep=clock.sleep), clock, 5)
    assert times == [1000.0, 1000.0, 1001.0, 1001.0, 1060.0]


def test_without_a_limit_nobody_waits(clock):
    assert starts(Limiter(None, None, None, clock=clock, sleep=clock.sleep), clock, 1000) == [1000.0] * 1000


def test_threads_take_their_turns_one_after_the_other():
    """Each waits for a start of its own, although all of them ask at the same time."""
    frozen, waited = Clock(), []
    limiter = Limiter(1, clock=frozen, sleep=waited.append)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: limiter.pace(), range(8)))
    assert sorted(waited) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


@pytest.mark.parametrize("limits", [{"per_second": 0}, {"per_minute": 0}, {"concurrent": -1}])
def test_a_limit_below_one_is_refused(limits):
    with pytest.raises(ValueError, match="1 or more"):
        Limiter(**limits)


@pytest.mark.parametrize("concurrent", [1, 2, 16])
def test_no_more_requests_are_under_way_than_allowed(server, concurrent):
    lock, now, most = threading.Lock(), [0], [0]

    def answer(_asked):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.01)
        with lock:
            now[0] -= 1
        return type(server.then().replies.pop())(200, {})

    server.answer = answer
    with (
        Client(server.url, per_second=None, concurrent=concurrent) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        list(pool.map(lambda _: client.get("/api/0/"), range(60)))
    assert most[0] <= concurrent
    assert most[0] >= min(concurrent, 4)
    assert len(server.asked) == 60
    assert server.connections <= concurrent


def test_a_client_asks_ten_times_a_second_and_a_lifted_limit_is_lifted(server, clock):
    for _ in range(24):
        server.then(200, {})
    pauses: list[float] = []
    paced = Client(server.url, sleep=pauses.append, clock=clock)
    for _ in range(12):
        paced.get("/api/0/")
    assert pauses == [1.0, 1.0]
    free = Client(server.url, sleep=pauses.append, clock=clock, per_second=None)
    for _ in range(12):
        free.get("/api/0/")
    assert pauses == [1.0, 1.0]


def test_repetitions_count_as_requests(server, clock):
    server.then(503, {}).then(503, {}).then(200, {})
    pauses: list[float] = []
    Client(server.url, per_second=1, sleep=pauses.append, clock=clock, jitter=lambda: 1.0).get("/api/0/")
    assert pauses == [0.25, 1.0, 0.5, 2.0]


# --- circuit breaker --------------------------------------------------------------------------------------


class Model:
    """The breaker in the plainest words, one caller at a time."""

    def __init__(self) -> None:
        self.failed, self.until = 0, None

    def refuses(self, now):
        return self.until is not None and now < self.until

    def saw(self, verdict, now):
        probing = self.until is not None
        if verdict is UP:
            self.failed, self.until = 0, None
        elif verdict is DOWN:
            self.failed += 1
            if probing or self.failed >= 5:
                self.until = now + 60


@pytest.mark.parametrize("seed", range(40))
def test_any_sequence_of_calls_opens_and_closes_it_as_told(seed):
    chance, clock, model = random.Random(seed), Clock(), Model()
    breaker = CircuitBreaker(5, 60, clock=clock)
    refused = 0
    for _ in range(400):
        clock.now += chance.choice([0, 1, 10, 59, 60])
        verdict = chance.choices([UP, DOWN, UNKNOWN], [1, 8, 1])[0]
        if model.refuses(clock.now):
            refused += 1
            with pytest.raises(CircuitOpen) as state:
                breaker.enter()
            assert state.value.seconds == model.until - clock.now
            continue
        breaker.leave(breaker.enter(), verdict)
        model.saw(verdict, clock.now)
    assert refused > 20


def test_one_probe_at_a_time():
    clock = Clock()
    breaker = CircuitBreaker(1, 60, clock=clock)
    breaker.leave(breaker.enter(), DOWN)
    clock.now += 60
    assert breaker.enter() is True
    with pytest.raises(CircuitOpen):
        breaker.enter()
    breaker.leave(True, UNKNOWN)
    assert breaker.enter() is True
    breaker.leave(True, UP)
    assert breaker.enter() is False


def test_of_many_threads_one_probes():
    clock = Clock()
    breaker = CircuitBreaker(1, 60, clock=clock)
    breaker.leave(breaker.enter(), DOWN)
    clock.now += 60

    def try_it(_):
        try:
            return breaker.enter()
        except CircuitOpen:
            return None

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(try_it, range(200)), key=str) == [None] * 199 + [True]


def test_a_late_failure_of_an_earlier_call_does_not_keep_it_open_longer():
    clock = Clock()
    breaker = CircuitBreaker(1, 60, clock=clock)
    early, late = breaker.enter(), breaker.enter()
    breaker.leave(early, DOWN)
    clock.now += 59
    breaker.leave(late, DOWN)
    clock.now += 1
    assert breaker.enter() is True


def test_it_may_be_told_never_to_open():
    breaker = CircuitBreaker(None)
    for _ in range(100):
        breaker.leave(breaker.enter(), DOWN)
    assert breaker.enter() is False


def failing(server, clock, status, *, count=5, method="GET", **options):
    """A client that has failed `count` times with this status."""
    client = Client(server.url, retries=0, per_second=None, clock=clock, **options)
    for _ in range(count):
        server.then(drop=True) if status is None else server.then(status, {"detail": "x"})
        with pytest.raises(GlitchTipError):
            client.request(method, "/api/0/organizations/")
    return client


@pytest.mark.parametrize("status", [None, 500, 502, 503, 504])
def test_a_server_that_failed_five_times_is_left_alone_for_a_minute(server, clock, status):
    client = failing(server, clock, status)
    before = len(server.asked)
    clock.now += 18
    with pytest.raises(UnreachableError) as failure:
        client.get("/api/0/organizations/")
    assert len(server.asked) == before
    assert failure.value.code == "circuit_open"
    assert failure.value.maybe_applied is False
    assert str(failure.value) == (
        f"GET /api/0/organizations/: {server.url} failed 5 times in a row and is not asked for 42 s "
        "(nothing was sent; see why the server is down)"
    )


def test_after_a_minute_one_request_tries_it_and_closes_the_circuit(server, clock):
    client = failing(server, clock, 503)
    clock.now += 60
    server.then(200, []).then(200, [])
    assert client.get("/api/0/organizations/") == []
    assert client.get("/api/0/organizations/") == []


def test_a_probe_that_fails_is_not_repeated_and_opens_it_again(server, clock):
    client = failing(server, clock, 503)
    client.transport.retries = 3
    clock.now += 60
    server.then(503, {})
    with pytest.raises(GlitchTipError, match="503"):
        client.get("/api/0/")
    assert len(server.asked) == 6
    with pytest.raises(UnreachableError, match="is not asked for 60 s"):
        client.get("/api/0/")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429])
def test_a_refusal_does_not_open_it(server, clock, status):
    client = failing(server, clock, status, count=12)
    assert len(server.asked) == 12
    server.then(200, {})
    client.get("/api/0/")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_writes_500_does_not_open_it_because_a_taken_name_is_one(server, clock, method):
    client = failing(server, clock, 500, count=12, method=method)
    server.then(200, {})
    client.get("/api/0/")


def test_four_failures_and_an_answer_begin_anew(server, clock):
    client = failing(server, clock, 503, count=4)
    server.then(404, {"detail": "Not Found"})
    assert client.get_or_none("/api/0/organizations/none/") is None
    for _ in range(4):
        server.then(503, {})
        with pytest.raises(GlitchTipError, match="503"):
            client.get("/api/0/")


def test_a_repeated_call_counts_once(server, clock):
    client = Client(
        server.url, retries=3, per_second=None, clock=clock, sleep=lambda _s: None, jitter=lambda: 0.0
    )
    for _ in range(16):
        server.then(503, {})
    for _ in range(4):
        with pytest.raises(GlitchTipError, match="503"):
            client.get("/api/0/")
    server.then(200, {})
    assert client.get("/api/0/") == {}


def test_a_write_that_this_client_refuses_says_nothing_of_the_server(server, clock):
    client = Client(server.url, read_only=True, clock=clock, per_second=None)
    for _ in range(6):
        with pytest.raises(GlitchTipError):
            client.post("/api/0/x/")
    server.then(200, {})
    client.get("/api/0/")


def test_an_interrupted_probe_lets_the_next_call_try(server, clock, monkeypatch):
    client = failing(server, clock, 503)
    clock.now += 60
    with monkeypatch.context() as patch:
        patch.setattr(
            client.transport.connections,
            "exchange",
            lambda *_a, **_k: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            client.get("/api/0/")
    server.then(200, {})
    assert client.get("/api/0/") == {}

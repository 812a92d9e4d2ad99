"""The load generator, a process of its own: a `Specification` on stdin, the `Measured` on stdout, as lines of JSON.

Each connection keeps so many calls in flight and makes the next when one is answered (a closed loop). Every answer is
checked. CPU time of the server's processes is read at the window's two ends, from within, so that it fits the count.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import os
import resource
import signal
import sys
import time
from collections import Counter
from datetime import datetime
from typing import Any, Final

import msgspec
import uvloop

from benchmarks.client import Client, ClientError, Message, Template, open_clients
from benchmarks.frames import encode_frame
from benchmarks.processes import read_busy_seconds, read_cpu_seconds
from benchmarks.sealing import Level

DRAIN_SECONDS: Final = 60.0
ACKNOWLEDGE_EVERY: Final = 32
"""Numbered messages; protocol.md section 10 asks for one at least every 64."""
MARK: Final = signal.SIGRTMIN + 1
"""Begins and ends a window of ``benchmarks.profiled``."""
LOAD: Final = "load"
"""The generator's own entry among the CPU times."""

METADATA: Final = {"timeout_ms": 30_000}
TEXT: Final = "The quick brown fox\njumps over the lazy dog\n" * 4
COUNTED: Final = {"words": 36, "lines": 8, "characters": 176}


class Workload(enum.StrEnum):
    PING = "session.ping"
    EXECUTE = "tools.execute"
    IDLE = "idle"
    """Connections that are authenticated and say nothing, until a line or the end of stdin."""


class Specification(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    key: str
    workload: Workload
    connections: int
    in_flight: int = 1
    level: Level = Level.STANDARD
    signing_seed: bytes = b""
    """At level critical: of the account's key, 32 bytes."""
    seconds: float = 5.0
    warm_up_seconds: float = 1.0
    processes: dict[str, tuple[int, ...]] = {}
    """Whose CPU time is read, by name."""
    marked: tuple[int, ...] = ()
    """Processes that are sent ``MARK`` at the window's two ends."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    seconds: float
    latencies_ms: dict[str, float]
    """``p50``, ``p95``, ``p99`` and ``max`` of the calls that were answered in the window."""
    answers: int
    """Right ones, in the window."""
    errors: dict[str, int]
    """By code or by what was wrong; over the whole run, warm-up included."""
    events: int
    cpu_seconds: dict[str, float]
    busy_seconds: float
    """CPU time of the whole machine."""
    request_bytes: int


class Pong(msgspec.Struct, frozen=True):
    server_time: datetime


class PongPayload(msgspec.Struct, frozen=True):
    command: str
    result: Pong


class Run(msgspec.Struct, frozen=True):
    execution_id: str
    state: str
    output: dict[str, int]


class RunPayload(msgspec.Struct, frozen=True):
    command: str
    result: Run


class ErrorPayload(msgspec.Struct, frozen=True):
    code: str
    retry_after_ms: int | None = None


class Window:
    """What all callers have measured; calls are made until ``stop``, and counted between ``open`` and ``stop``."""

    def __init__(self) -> None:
        self.is_calling = True
        self.has_answers = asyncio.Event()
        """Any, wrong ones too, since it was opened."""
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()
        self.events = 0
        self._is_open = False

    def open(self) -> None:
        self.has_answers.clear()
        self.latencies.clear()
        self.events = 0
        self._is_open = True

    def stop(self) -> None:
        self._is_open = self.is_calling = False

    def add(self, latency: float) -> None:
        self.has_answers.set()
        if self._is_open:
            self.latencies.append(latency)

    def add_error(self, name: str) -> None:
        self.has_answers.set()
        self.errors[name] += 1


class Caller:
    """One connection's closed loop."""

    payload: dict[str, Any]

    def __init__(self, *, client: Client, window: Window, in_flight: int) -> None:
        self.is_done = asyncio.Event()
        self.template = Template(message_type="command", payload=self.payload, metadata=METADATA)
        self._payload, self._metadata = msgspec.json.encode(self.payload), msgspec.json.encode(METADATA)
        self.client = client
        self._window = window
        self._in_flight = in_flight
        self._started: dict[str, float] = {}
        client.on_message = self._take
        client.on_lost = self._take_loss

    def start(self) -> None:
        for _ in range(self._in_flight):
            self._call()
        self.client.flush()

    def judge(self, message: Message) -> str | None:
        """What is wrong with a response, if anything."""
        raise NotImplementedError

    def _call(self) -> None:
        message_id = self.client.make_id()
        self._started[message_id] = time.perf_counter()
        sealing = self.client.sealing
        if sealing is None:
            self.client.queue(self.template.fill(message_id))
            return
        sealed = sealing.seal(message_id, message_type="command", payload=self._payload, metadata=self._metadata)
        self.client.queue(encode_frame(sealed))

    def _take(self, message: Message) -> None:
        if message.type == "event":
            self._window.events += 1
            return
        if message.type == "heartbeat":
            return
        correlation_id = message.metadata.correlation_id if message.metadata else None
        started = self._started.pop(correlation_id or "", None)
        pause: int | None = None
        if started is None:
            self._window.add_error("an answer to nothing")
            return
        if message.type == "error":
            error = msgspec.json.decode(message.payload, type=ErrorPayload)
            pause = error.retry_after_ms
            problem: str | None = error.code
        else:
            problem = self.judge(message)
        if problem is None:
            self._window.add(time.perf_counter() - started)
        else:
            self._window.add_error(problem)
        self._go_on(pause)

    def _go_on(self, pause_ms: int | None) -> None:
        if not self._window.is_calling:
            if not self._started:
                self.is_done.set()
        elif pause_ms is None:
            self._call()
        else:
            asyncio.get_running_loop().call_later(pause_ms / 1000, self._call_again)

    def _call_again(self) -> None:
        if self._window.is_calling:
            self._call()
            self.client.flush()
        else:
            self._go_on(None)

    def _take_loss(self) -> None:
        if not self.is_done.is_set():
            self._window.add_error(f"connection lost ({self.client.close_code})")
            self.is_done.set()


class PingCaller(Caller):
    payload = {"command": "session.ping", "arguments": {}}
    _decode = msgspec.json.Decoder(PongPayload).decode

    def judge(self, message: Message) -> str | None:
        if message.type != "response" or self._decode(message.payload).command != Workload.PING:
            return "wrong answer"
        return None


class ExecuteCaller(Caller):
    payload = {"command": "tools.execute", "arguments": {"tool": "text.count_words", "input": {"text": TEXT}}}
    _decode = msgspec.json.Decoder(RunPayload).decode
    _sequence = 0

    def judge(self, message: Message) -> str | None:
        if message.type != "response":
            return "wrong answer"
        result = self._decode(message.payload).result
        sequence = message.metadata.sequence if message.metadata else None
        if result.state != "succeeded" or result.output != COUNTED:
            return "wrong answer"
        if sequence != self._sequence + 1:
            return "an answer is missing, or out of order"
        self._sequence = sequence
        if sequence % ACKNOWLEDGE_EVERY == 0:
            self.client.queue(encode_frame(self.client.encode("heartbeat", {"ack": sequence})))
        return None


CALLERS: Final[dict[Workload, type[Caller]]] = {Workload.PING: PingCaller, Workload.EXECUTE: ExecuteCaller}


class Meter:
    """CPU time of the processes between its making and ``read``."""

    def __init__(self, specification: Specification) -> None:
        self._specification = specification
        self._mark()
        self._started = time.perf_counter()
        self._before = self._read()

    def read(self) -> tuple[float, dict[str, float], float]:
        """Seconds passed, CPU seconds by name, and those of the whole machine."""
        after, busy = self._read()
        seconds = time.perf_counter() - self._started
        self._mark()
        before, busy_before = self._before
        return seconds, {name: after[name] - before[name] for name in after}, busy - busy_before

    def _read(self) -> tuple[dict[str, float], float]:
        found = {name: read_cpu_seconds(pids) for name, pids in self._specification.processes.items()}
        own = resource.getrusage(resource.RUSAGE_SELF)
        return {**found, LOAD: own.ru_utime + own.ru_stime}, read_busy_seconds()

    def _mark(self) -> None:
        for pid in self._specification.marked:
            # One that is gone leaves no window, which is noticed there.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, MARK)


async def run(specification: Specification) -> Measured:
    """Do what is specified.

    Raises:
        ClientError: a connection cannot be opened.
    """
    clients = await open_clients(
        url=specification.url,
        key=specification.key,
        count=specification.connections,
        level=specification.level,
        signing_seed=specification.signing_seed,
    )
    if specification.workload is Workload.IDLE:
        return await stay_idle(clients)
    window = Window()
    make = CALLERS[specification.workload]
    callers = [make(client=client, window=window, in_flight=specification.in_flight) for client in clients]
    for caller in callers:
        caller.start()
    await asyncio.sleep(specification.warm_up_seconds)
    meter = Meter(specification)
    window.open()
    await asyncio.sleep(specification.seconds)
    async with asyncio.timeout(DRAIN_SECONDS):
        # A window without any says nothing.
        await window.has_answers.wait()
    seconds, cpu_seconds, busy_seconds = meter.read()
    window.stop()
    async with asyncio.timeout(DRAIN_SECONDS):
        await asyncio.gather(*(caller.is_done.wait() for caller in callers))
        await asyncio.gather(*(client.close() for client in clients))
    return Measured(
        seconds=seconds,
        answers=len(window.latencies),
        latencies_ms=describe_latencies(window.latencies),
        errors=dict(window.errors),
        events=window.events,
        cpu_seconds=cpu_seconds,
        busy_seconds=busy_seconds,
        request_bytes=callers[0].template.size_bytes,
    )


async def stay_idle(clients: list[Client]) -> Measured:
    """Say that all are open, keep them so, close them."""
    write("ready")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    lost = sum(not client.is_open for client in clients)
    await asyncio.gather(*(client.close() for client in clients))
    return Measured(
        seconds=0,
        answers=0,
        latencies_ms={},
        errors={"connection lost": lost} if lost else {},
        events=0,
        cpu_seconds={},
        busy_seconds=0,
        request_bytes=0,
    )


def describe_latencies(seconds: list[float]) -> dict[str, float]:
    """The usual percentiles in milliseconds; none of nothing."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    last = len(ordered) - 1
    shown = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: ordered[round(share * last)] * 1000 for name, share in shown.items()}


def write(content: object) -> None:
    """A line of JSON to whoever started this process."""
    sys.stdout.write(msgspec.json.encode(content).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    specification = msgspec.json.decode(sys.stdin.readline(), type=Specification)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, specification.connections + 256)), hard))
    # Its pauses would be taken for the server's.
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            write(runner.run(run(specification)))
    except (ClientError, TimeoutError) as error:
        sys.exit(f"load generator: {error if str(error) else 'calls were not answered in time'}")


if __name__ == "__main__":
    main()

"""Where the CPU time goes: the product under `benchmarks.profiled`, and its windows turned into costs an answer.

cProfile sees every call and so makes small functions look dear. What it adds is taken off: so much for each call, on
the side of the caller and of the called, that the lines add up to what the same load takes without a profiler.
Functions in C count with who called them, but for libraries that are mostly C.
"""

from __future__ import annotations

import cProfile
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from benchmarks.load import Workload
from benchmarks.measure import Load, Target, run_load
from benchmarks.product import PROJECT_ROOT, ProductError, install_product
from benchmarks.results import Cost, Profile

PROFILER: Final = PROJECT_ROOT / "benchmarks" / "profiled"
PARTS: Final = ("web", "worker", "pool")
WINDOW_FILE_SECONDS: Final = 20.0
CALIBRATION_CALLS: Final = 200_000
MAX_FUNCTIONS: Final = 40
MAX_CORRECTION: Final = 20.0
"""Times what the calibration says: it calls one function over and over, which is the profiler's best case."""

LIBRARIES: Final = sysconfig.get_paths()["purelib"]
STANDARD_LIBRARY: Final = sysconfig.get_paths()["stdlib"]
UNRETURNED: Final = "event loop and main loop"
"""What no finished call accounts for: the frames at the bottom of each thread, which never return."""
OTHER: Final = "other functions in C"
C_GROUPS: Final = {
    "msgspec": "msgspec",
    "uvloop": UNRETURNED,
    "sqlite3": "SQLite",
    "SQLiteCursorWrapper": "SQLite",
    "_socket": "sockets",
    "select": UNRETURNED,
    "hiredis": "redis",
    "jsonschema_rs": "jsonschema_rs",
    "_thread": "threads and locks",
}


class Callee(msgspec.Struct, frozen=True, array_like=True):
    function: str
    calls: int
    seconds: float


class Entry(msgspec.Struct, frozen=True):
    function: str
    calls: int
    seconds: float
    callees: list[Callee]


class Thread(msgspec.Struct, frozen=True):
    """One thread's window: what its profiler had counted at the beginning and at the end."""

    clock: Literal["wall", "cpu"]
    cpu_seconds: float
    begun: list[Entry]
    ended: list[Entry]


class Bias(msgspec.Struct, frozen=True, kw_only=True):
    """What the profiler adds for each call, in seconds."""

    to_called: float
    to_caller: float


class Sums:
    """Calls and seconds of a part's functions, over all of its threads and processes."""

    def __init__(self, biases: Mapping[str, Bias]) -> None:
        self.calls: Counter[str] = Counter()
        self.edges: dict[str, dict[str, float]] = {}
        """By called function: seconds by caller."""
        self._raw: dict[str, float] = {UNRETURNED: 0.0}
        self._added: dict[str, float] = {UNRETURNED: 0.0}
        """Seconds that the profiler has added, by the calibration."""
        self._biases = biases

    def add(self, thread: Thread) -> None:
        """Add one thread's window."""
        bias = self._biases[thread.clock]
        raw: dict[str, float] = {}
        calls: Counter[str] = Counter()
        calls_made: Counter[str] = Counter()
        for sign, entries in ((-1, thread.begun), (1, thread.ended)):
            for entry in entries:
                raw[entry.function] = raw.get(entry.function, 0.0) + sign * entry.seconds
                calls[entry.function] += sign * entry.calls
                for callee in entry.callees:
                    calls_made[entry.function] += sign * callee.calls
                    callers = self.edges.setdefault(callee.function, {})
                    callers[entry.function] = callers.get(entry.function, 0.0) + sign * callee.seconds
        for function, seconds in raw.items():
            self._raw[function] = self._raw.get(function, 0.0) + seconds
            added = calls[function] * bias.to_called + calls_made[function] * bias.to_caller
            self._added[function] = self._added.get(function, 0.0) + added
        self._raw[UNRETURNED] += max(0.0, thread.cpu_seconds - sum(raw.values()))
        self._added[UNRETURNED] += (calls.total() - calls_made.total()) * bias.to_caller
        self.calls += calls

    def correct(self, *, measured_seconds: float) -> dict[str, float]:
        """Each function's own seconds without the profiler's, which add up to the measured ones."""
        low, high = 0.0, MAX_CORRECTION
        while high - low > 0.001:
            factor = (low + high) / 2
            if sum(self._take_off(factor).values()) > measured_seconds:
                low = factor
            else:
                high = factor
        return self._take_off(high)

    def get_overhead_seconds(self, own: Mapping[str, float]) -> float:
        """What the profiler has added for each call, when ``own`` is what is left."""
        return (sum(self._raw.values()) - sum(own.values())) / max(1, self.calls.total())

    def _take_off(self, factor: float) -> dict[str, float]:
        return {name: max(0.0, seconds - factor * self._added[name]) for name, seconds in self._raw.items()}


def profile_loads(
    variables: Mapping[str, str], loads: Sequence[Load], *, measured_us: Mapping[tuple[str, int, int, str], float]
) -> list[Profile]:
    """Run loads of one workload against a product under the profiler; a profile of each part for each.

    ``measured_us`` is what each took without, for an answer: by workload, connections, calls in flight, and part.
    """
    biases = {"wall": calibrate(cProfile.Profile()), "cpu": calibrate(cProfile.Profile(time.thread_time))}
    profiles: list[Profile] = []
    with tempfile.TemporaryDirectory(prefix="mcp-profiles-") as folder:
        own = {
            "PYTHONPATH": str(PROFILER),
            "BENCHMARK_PROFILES": folder,
            # What pings take is all on one thread, which never waits but for them; runs wait for the database.
            "BENCHMARK_PROFILE_CLOCK": "wall" if loads[0].workload is Workload.PING else "cpu",
        }
        with install_product({**variables, **own}) as product:
            product.start()
            roles = dict(product.find_roles())
            target = Target(url=product.websocket_url, key=product.key, roles=roles)
            pids = tuple(pid for part in PARTS for pid in roles[part])
            for number, load in enumerate(loads, start=1):
                answers = run_load(target, load, marked=pids).answers
                for part in PARTS:
                    sums = Sums(biases)
                    for pid in roles[part]:
                        for thread in read_window(Path(folder), pid=pid, number=number):
                            sums.add(thread)
                    key = (load.workload.value, load.connections, load.in_flight, part)
                    profiles.append(describe(sums, part=part, load=load, answers=answers, measured_us=measured_us[key]))
            product.stop()
    return profiles


def read_window(folder: Path, *, pid: int, number: int) -> list[Thread]:
    """What a process left, once it has.

    Raises:
        ProductError: it has not, in time.
    """
    path = folder / f"{pid}-{number}.json"
    give_up_at = time.monotonic() + WINDOW_FILE_SECONDS
    while not path.exists():
        if time.monotonic() > give_up_at:
            raise ProductError(f"process {pid} left no profile")
        time.sleep(0.05)
    return msgspec.json.decode(path.read_bytes(), type=list[Thread])


def describe(sums: Sums, *, part: str, load: Load, answers: int, measured_us: float) -> Profile:
    """The sums as costs an answer, dearest first."""
    answers = max(1, answers)
    corrected = sums.correct(measured_seconds=measured_us * answers / 1e6)
    seconds: dict[str, float] = {}
    calls: dict[str, float] = {}
    for function, own in corrected.items():
        for group, share in split_by_group(function, sums.edges):
            seconds[group] = seconds.get(group, 0.0) + own * share
            calls[group] = calls.get(group, 0.0) + sums.calls[function] * share
    return Profile(
        workload=load.workload,
        connections=load.connections,
        in_flight=load.in_flight,
        part=part,
        answers=answers,
        measured_us=measured_us,
        overhead_us=sums.get_overhead_seconds(corrected) * 1e6,
        groups=[Cost(name=group, us=own / answers * 1e6, calls=calls[group] / answers) for group, own in rank(seconds)],
        functions=[
            Cost(name=shorten(function), us=own / answers * 1e6, calls=sums.calls[function] / answers)
            for function, own in rank(corrected)[:MAX_FUNCTIONS]
        ],
    )


def rank(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    """Dearest first."""
    return sorted(seconds.items(), key=lambda item: -item[1])


def split_by_group(function: str, edges: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float]]:
    """The groups that a function belongs to, with its share in each."""
    group = name_group(function)
    if group is not None:
        return [(group, 1.0)]
    callers: dict[str, float] = {}
    for caller, seconds in edges.get(function, {}).items():
        name = name_group(caller) or OTHER
        callers[name] = callers.get(name, 0.0) + max(0.0, seconds)
    total = sum(callers.values())
    return [(name, seconds / total) for name, seconds in callers.items()] if total else [(OTHER, 1.0)]


def name_group(function: str) -> str | None:
    """The group of a function; none for one in C that counts with its callers."""
    if function == UNRETURNED:
        return UNRETURNED
    path = get_path(function)
    if path is None:
        return next((group for mark, group in C_GROUPS.items() if mark in function), None)
    if path.startswith(LIBRARIES):
        name = Path(path).relative_to(LIBRARIES).parts[0].removesuffix(".py")
        return "redis" if name == "hiredis" else name
    if path.startswith(str(PROJECT_ROOT)):
        return str(Path(path).relative_to(PROJECT_ROOT))
    if "/asyncio/" in path:
        return UNRETURNED
    return "standard library"


def shorten(function: str) -> str:
    """A function's name for people: its path from the project or the libraries on."""
    for folder in (LIBRARIES, str(PROJECT_ROOT), STANDARD_LIBRARY):
        if function.startswith(f"{folder}/"):
            return function.removeprefix(f"{folder}/")
    return function


def get_path(function: str) -> str | None:
    """The file of a function in Python; none of one in C, or of code that was made at run time."""
    path, _, _ = function.partition(":")
    return path if path.startswith("/") else None


def calibrate(profile: cProfile.Profile) -> Bias:
    """Measure what a call costs this profiler, on a function that does nothing."""
    plain = _time_calls(CALIBRATION_CALLS) / CALIBRATION_CALLS
    profile.enable()
    _time_calls(CALIBRATION_CALLS)
    profile.disable()
    own = {getattr(entry.code, "co_name", ""): entry.inlinetime / CALIBRATION_CALLS for entry in profile.getstats()}
    # Of the bare call's time a part is inside of the called; it is small beside what is measured here.
    return Bias(to_called=own["_do_nothing"] - plain / 2, to_caller=own["_time_calls"] - plain / 2)


def _time_calls(count: int) -> float:
    started = time.thread_time()
    for _ in range(count):
        _do_nothing()
    return time.thread_time() - started


def _do_nothing() -> None:
    pass

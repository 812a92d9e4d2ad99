"""Chunks of buckets: whatever processes do with theirs, what is taken in any window is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from security.domain.chunks import LEASE_SHARE, Bucket, Chunk

PROCESSES = 3
Step = tuple[str, int, float]
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "look", "lose", "wait"]),
        st.integers(0, PROCESSES - 1),
        st.floats(0, 30),
    ),
    max_size=300,
)


def take(chunk: Chunk, bucket: Bucket, *, now: float) -> bool:
    """As a command does: from the chunk, which is filled up before it is empty."""
    if chunk.tokens < 1:
        chunk.add(granted=bucket.lease(wanted=chunk.size, now=now))
    if chunk.tokens < 1:
        return False
    chunk.tokens -= 1
    if chunk.tokens <= chunk.low:
        chunk.add(granted=bucket.lease(wanted=chunk.size, now=now))
    return True


@given(steps=steps, burst=st.integers(1, 2000), rate=st.floats(0.01, 100))
def test_no_window_has_more_than_the_limit_and_what_was_held(steps: list[Step], burst: int, rate: float) -> None:
    bucket = Bucket(burst=burst, rate=rate, now=0.0)
    chunks = [Chunk(burst=burst) for _ in range(PROCESSES)]
    now, taken = 0.0, []
    for kind, process, seconds in steps:
        chunk = chunks[process]
        if kind == "take":
            taken += [now] * sum(take(chunk, bucket, now=now) for _ in range(1 + int(seconds) * 10))
        elif kind == "look":
            bucket.lease(wanted=0, now=now, returned=chunk.look())
        elif kind == "lose":
            # The process was killed: what it held is lost, and counts as taken.
            chunks[process] = Chunk(burst=burst)
        else:
            now += seconds
        assert 0 <= chunk.tokens <= get_most_held(burst)
        assert bucket.level <= burst
    held = PROCESSES * get_most_held(burst)
    for first, start in enumerate(taken):
        for last in range(first, len(taken), max(1, len(taken) // 20)):
            allowed = burst + rate * (taken[last] - start) + held
            assert last - first + 1 <= allowed + 1e-6


def get_most_held(burst: int) -> int:
    """What a process may hold: half a lease, and the next one."""
    size = max(1, burst // LEASE_SHARE)
    return size + size // 2


@given(burst=st.integers(1, 5000), wanted=st.integers(0, 20_000))
def test_one_process_gets_exactly_the_burst(burst: int, wanted: int) -> None:
    bucket, chunk = Bucket(burst=burst, rate=1.0, now=0.0), Chunk(burst=burst)
    assert sum(take(chunk, bucket, now=0.0) for _ in range(min(wanted, 7000))) == min(burst, wanted, 7000)


def test_a_bucket_fills_at_its_rate_and_no_clock_that_goes_back_fills_it() -> None:
    bucket = Bucket(burst=10, rate=2.0, now=100.0)
    assert bucket.lease(wanted=20, now=100.0) == 10
    assert bucket.get_wait_seconds() == 0.5
    assert bucket.lease(wanted=20, now=50.0) == 0
    assert bucket.lease(wanted=20, now=101.5) == 3
    assert bucket.lease(wanted=20, now=1000.0) == 10


def test_leases_grow_with_use_and_what_nobody_uses_is_given_back() -> None:
    chunk = Chunk(burst=32_000)
    sizes = []
    for _ in range(9):
        sizes.append(chunk.size)
        chunk.tokens = 0
        chunk.add(granted=chunk.size)
    assert sizes == [8, 16, 32, 64, 128, 256, 512, 1000, 1000]
    held = chunk.tokens
    assert [chunk.look(), chunk.look(), chunk.look()] == [0, 0, held]
    assert (chunk.tokens, chunk.size) == (0, 500)


def test_the_smallest_limit_leases_one_at_a_time() -> None:
    chunk = Chunk(burst=1)
    chunk.add(granted=1)
    assert (chunk.size, chunk.low, chunk.tokens) == (1, 0, 1)

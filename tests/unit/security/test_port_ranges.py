"""The arithmetic of port ranges, against sets of ports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.domain.port_leases import HELD_STATES, LIVE_STATES, TRANSITIONS, LeaseEvent, LeaseState, list_sources
from security.domain.port_ranges import HIGHEST_PORT, PortPool, PortRange, iterate_candidates, make_pool, parse_range

PORTS = st.integers(1, HIGHEST_PORT)
RANGES = st.builds(lambda first, size: (first, min(first + size, HIGHEST_PORT)), PORTS, st.integers(0, 300))
TEXTS = st.lists(RANGES.map(lambda ends: f"{ends[0]}-{ends[1]}"), max_size=5).map(tuple)


def list_ports(texts: tuple[str, ...]) -> set[int]:
    return {port for text in texts for port in range(int(text.split("-")[0]), int(text.split("-")[1]) + 1)}


@given(TEXTS, TEXTS)
def test_a_pool_is_its_ranges_without_the_reserved(ranges: tuple[str, ...], reserved: tuple[str, ...]) -> None:
    pool = make_pool(ranges=ranges, reserved=reserved)
    expected = list_ports(ranges) - list_ports(reserved)
    assert set(pool) == expected
    assert pool.size == len(expected) == len(list(pool))
    assert all(port in pool for port in expected)
    assert [pool.get_port(index) for index in range(pool.size)] == sorted(expected)
    # Neither overlaps nor neighbours: what is shown is as short as it can be.
    assert all(before.last + 1 < after.first for before, after in zip(pool.ranges, pool.ranges[1:], strict=False))


@given(TEXTS, st.integers(0, 2**64 - 1), st.sets(PORTS, max_size=20), st.sets(PORTS, max_size=20))
def test_every_candidate_comes_once_and_the_held_back_last(
    texts: tuple[str, ...], entropy: int, excluded: set[int], last: set[int]
) -> None:
    pool = make_pool(ranges=texts, reserved=())
    some = set(list(pool)[::3])
    excluded, last = excluded | set(list(some)[:50]), last | set(list(some)[25:75])
    found = list(iterate_candidates(pool=pool, entropy=entropy, excluded=excluded, last=last))
    assert len(found) == len(set(found))
    assert set(found) == set(pool) - excluded
    is_last = [port in last for port in found]
    assert is_last == sorted(is_last)


def test_callers_that_come_at_once_begin_at_many_places() -> None:
    pool = make_pool(ranges=("20000-20999",), reserved=())
    first = {next(iterate_candidates(pool=pool, entropy=number * 0x9E3779B97F4A7C15)) for number in range(100)}
    assert len(first) > 50


@pytest.mark.parametrize("index", [-1, 10])
def test_a_place_beyond_the_pool_is_none(index: int) -> None:
    with pytest.raises(IndexError):
        PortPool((PortRange(1, 10),)).get_port(index)


@pytest.mark.parametrize(
    "text", ["", "-1", "0", "0-10", "65536", "20-10", "1-65536", "a-b", "1-2-3", "1,2", "\u0661", " 1", "1.5", "999999"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        parse_range(text)


@pytest.mark.parametrize(("port", "is_in"), [(0, False), (-1, False), (65536, False), (2**80, False), (1, True)])
def test_only_ports_are_in_a_pool(port: int, *, is_in: bool) -> None:
    assert (port in make_pool(ranges=("1-65535",), reserved=())) is is_in


def test_the_table_of_leases_leads_every_state_to_its_end() -> None:
    assert set(TRANSITIONS) == set(LeaseState)
    reached = {LeaseState.RESERVED}
    while more := {target for state in reached for target in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(LeaseState)
    assert not TRANSITIONS[LeaseState.RELEASED]
    assert set(HELD_STATES) == {LeaseState.RESERVED, LeaseState.ACTIVE}
    assert set(LIVE_STATES) == {LeaseState.RESERVED, LeaseState.ACTIVE, LeaseState.DRAINING}
    assert list_sources(LeaseEvent.PORT_LEFT) == (LeaseState.DRAINING,)

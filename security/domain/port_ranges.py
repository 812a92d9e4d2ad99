"""Which ports may be leased, and the order in which they are tried: arithmetic, no more.

A pool is what the settings' ranges hold without the reserved ports. Whether a port is free is the operating system's to
say (``services.port_probe``), who has it the database's.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Final

LOWEST_PORT: Final = 1
HIGHEST_PORT: Final = 65_535

_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """The ports from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not LOWEST_PORT <= self.first <= self.last <= HIGHEST_PORT:
            raise ValueError(f"a range of ports is within {LOWEST_PORT} and {HIGHEST_PORT}, the lower first")

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class PortPool:
    """Ports, as ranges in ascending order with gaps between them."""

    ranges: tuple[PortRange, ...]

    @property
    def size(self) -> int:
        return sum(each.size for each in self.ranges)

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and any(each.first <= port <= each.last for each in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for each in self.ranges:
            yield from range(each.first, each.last + 1)

    def __str__(self) -> str:
        return ", ".join(map(str, self.ranges))

    def get_port(self, index: int) -> int:
        """The port at that place, from 0.

        Raises:
            IndexError: there are not so many.
        """
        left = index
        for each in self.ranges:
            if 0 <= left < each.size:
                return each.first + left
            left -= each.size
        raise IndexError(index)


def parse_range(text: str) -> PortRange:
    """``20000-20999`` or ``8080`` as a range.

    Raises:
        ValueError: it is neither.
    """
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no range of ports such as 20000-20999")
    try:
        return PortRange(int(found[1]), int(found[2] or found[1]))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


@lru_cache(maxsize=16)
def make_pool(*, ranges: tuple[str, ...], reserved: tuple[str, ...]) -> PortPool:
    """What the ranges hold and is not reserved.

    Raises:
        ValueError: a text is no range.
    """
    free = _join(map(parse_range, ranges))
    for taken in _join(map(parse_range, reserved)):
        free = [part for each in free for part in _subtract(each, taken)]
    return PortPool(tuple(free))


def iterate_candidates(
    *, pool: PortPool, entropy: int, excluded: Container[int] = (), last: Container[int] = ()
) -> Iterator[int]:
    """Every port of the pool but the excluded, each once; those in ``last`` behind all others.

    ``entropy`` is any number from 0: it chooses where to begin and how far to step, so that callers that come at once
    rarely try the same port, and one that was just given up is rarely the next.
    """
    size = pool.size
    if not size:
        return
    start, stride = entropy % size, _choose_stride(size, entropy // size)
    held_back: list[int] = []
    for step in range(size):
        port = pool.get_port((start + step * stride) % size)
        if port in excluded:
            continue
        if port in last:
            held_back.append(port)
        else:
            yield port
    yield from held_back


def _choose_stride(size: int, entropy: int) -> int:
    """A step that comes to every place of a circle of that size."""
    stride = 1 + entropy % size
    while gcd(stride, size) != 1:
        stride += 1
    return stride


def _join(ranges: Iterable[PortRange]) -> list[PortRange]:
    """The same ports, with neither overlaps nor neighbours."""
    joined: list[PortRange] = []
    for each in sorted(ranges):
        if joined and each.first <= joined[-1].last + 1:
            joined[-1] = PortRange(joined[-1].first, max(joined[-1].last, each.last))
        else:
            joined.append(each)
    return joined


def _subtract(each: PortRange, taken: PortRange) -> Iterator[PortRange]:
    if taken.last < each.first or each.last < taken.first:
        yield each
        return
    if each.first < taken.first:
        yield PortRange(each.first, taken.first - 1)
    if taken.last < each.last:
        yield PortRange(taken.last + 1, each.last)

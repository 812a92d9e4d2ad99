"""When wrong passwords lock somebody out, and for how long.

A counter is one moment: when all that it holds is forgotten. Each attempt moves it on by one step, and time runs
towards it, so that it decays by itself, needs no job to count down, and is changed by one comparison in the database.
What belongs here takes the time as an argument. Where the moments are kept is ``services.lockout``'s.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from protocol.domain.addresses import parse_address

IPV6_NETWORK_BITS: Final = 64
"""What one customer has at least: counted as one address, or every guess would come from a new one."""
NO_ADDRESS: Final = "local"
"""How a peer without an address, on a Unix socket, is counted."""


CLOCK_TOLERANCE: Final = timedelta(seconds=1)
"""How far apart the moments of attempts may be that come at once: by who is counted first, and by nodes' clocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """So many wrong passwords, of which one is forgotten each ``step``."""

    attempts: int
    step: timedelta

    @property
    def slack(self) -> timedelta:
        """How far ahead a counter may lie for one more attempt to be allowed."""
        return (self.attempts - 1) * self.step + CLOCK_TOLERANCE


PAIR_ALLOWANCE: Final = Allowance(attempts=5, step=timedelta(minutes=3))
"""Of one account's name from one address."""
ADDRESS_ALLOWANCE: Final = Allowance(attempts=50, step=timedelta(seconds=18))
"""Of one address, whatever the names."""


def get_retry_after(*, allowance: Allowance, clear_at: datetime | None, now: datetime) -> timedelta:
    """How long no attempt is allowed; zero: one is. ``clear_at`` is the counter, ``None`` one that was never used."""
    if clear_at is None:
        return timedelta(0)
    return max(clear_at - now - allowance.slack, timedelta(0))


def count_attempt(*, allowance: Allowance, clear_at: datetime | None, now: datetime) -> datetime:
    """The counter with one attempt more."""
    return (now if clear_at is None else max(clear_at, now)) + allowance.step


def make_address_key(*, address: str | None) -> str:
    """Which counter is the address's: an IPv4 address itself, of an IPv6 address its network."""
    parsed = parse_address(address)
    if parsed is None:
        return NO_ADDRESS
    if isinstance(parsed, ipaddress.IPv6Address):
        number = int(parsed) >> (128 - IPV6_NETWORK_BITS) << (128 - IPV6_NETWORK_BITS)
        return f"{ipaddress.IPv6Address(number)}/{IPV6_NETWORK_BITS}"
    return str(parsed)


def make_pair_key(*, username: str, address_key: str) -> str:
    """Which counter is this name's at this address. A digest: now and then somebody types a password as the name."""
    name = username.casefold().encode("utf-8", errors="surrogatepass")
    return f"{address_key} {hashlib.sha256(name).hexdigest()}"

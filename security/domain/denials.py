"""Counting denials, so that a stranger cannot buy disk writes: what is written at once, what waits, what is too much.

The first denial of a source is due at once; the next ones of the same source wait until a second after, and are then
one. When more sources are due within a second than ``CEILING``, the rest are counted together. Pure: the caller has the
clock (monotonic seconds), the threads and the database. Not thread-safe: the caller holds a lock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from protocol.ports import Denial, Principal
from security.domain.lockout import make_address_key

INTERVAL_SECONDS: Final = 1.0
"""Of one source, one event in so long."""
CEILING: Final = 50
"""Events of single sources within a second, in one process; one more is of all other sources together."""
MAX_WAITING_A_SOURCE: Final = 256
"""Answers of one source that wait for an event; at most so many denials does one event of a source count."""
MAX_WAITING: Final = 10_000
"""Answers that wait, over all sources; and sources of which something is to be written."""
MAX_EXAMPLES: Final = 8
"""Different commands, and different sources, that one event names."""

Source = tuple[str, str]


class LedgerFull(Exception):
    """As many answers wait already as may."""


@dataclass(slots=True, kw_only=True)
class Group:
    """Denials that become one event."""

    first: Denial
    due_at: float
    codes: Counter[str] = field(default_factory=Counter)
    subjects: dict[str, None] = field(default_factory=dict)
    addresses: dict[str, None] = field(default_factory=dict)
    principal: Principal | None = None
    source_count: int = 1
    waiting: list[Future[None]] = field(default_factory=list)
    """One for each denial that is told only once the event is durable."""

    @property
    def count(self) -> int:
        return self.codes.total()

    def add(self, denial: Denial, waiter: Future[None] | None) -> None:
        self.codes[denial.code] += 1
        _note(self.subjects, denial.subject)
        _note(self.addresses, denial.remote_address or "")
        if waiter is not None:
            self.waiting.append(waiter)

    def merge(self, other: Group) -> None:
        """Take in another source's: then it is nobody's in particular."""
        self.codes += other.codes
        self.source_count += other.source_count
        self.principal = None
        for name in other.subjects:
            _note(self.subjects, name)
        for name in other.addresses:
            _note(self.addresses, name)
        self.waiting += other.waiting


class DenialLedger:
    """See the module."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Source, Group] = OrderedDict()
        self._crowd: Group | None = None
        self._written: OrderedDict[Source, float] = OrderedDict()
        """When each source's last event was taken, the oldest first; forgotten after the interval."""
        self._waiting = 0
        self._window_start = 0.0
        self._taken = 0

    def add(self, denial: Denial, waiter: Future[None] | None, *, now: float) -> None:
        """Count a denial; ``waiter`` is told once its event is durable, if somebody waits for that.

        Raises:
            LedgerFull: too many of its source, or of all, wait already, or too many sources; it is not counted.
        """
        source = get_source(denial)
        group = self._groups.get(source)
        if waiter is not None and (
            self._waiting >= MAX_WAITING or (group is not None and len(group.waiting) >= MAX_WAITING_A_SOURCE)
        ):
            raise LedgerFull
        if group is None:
            if len(self._groups) >= MAX_WAITING:
                raise LedgerFull
            written_at = self._written.get(source)
            due_at = now if written_at is None else max(now, written_at + INTERVAL_SECONDS)
            group = self._groups[source] = Group(first=denial, due_at=due_at, principal=denial.principal)
        group.add(denial, waiter)
        if waiter is not None:
            self._waiting += 1

    def get_next_due(self) -> float | None:
        """When something is to be written; ``None``: nothing waits."""
        due = [group.due_at for group in self._groups.values()]
        if self._crowd is not None:
            due.append(self._crowd.due_at)
        return min(due, default=None)

    def take(self, *, now: float) -> list[Group]:
        """What is to be written now, each group as one event."""
        self._forget(now)
        if now - self._window_start >= INTERVAL_SECONDS:
            self._window_start, self._taken = now, 0
        taken: list[Group] = []
        if self._crowd is not None and self._crowd.due_at <= now:
            taken.append(self._crowd)
            self._crowd = None
        for source, group in list(self._groups.items()):
            if group.due_at > now:
                continue
            del self._groups[source]
            if self._taken < CEILING:
                self._taken += 1
                self._written[source] = now
                taken.append(group)
            elif self._crowd is None:
                group.due_at = self._window_start + INTERVAL_SECONDS
                self._crowd = group
            else:
                self._crowd.merge(group)
        self._waiting -= sum(len(group.waiting) for group in taken)
        return taken

    def _forget(self, now: float) -> None:
        while self._written:
            source, written_at = next(iter(self._written.items()))
            if now - written_at < INTERVAL_SECONDS:
                return
            del self._written[source]


def get_source(denial: Denial) -> Source:
    """Whom a denial is counted for: an account, or an address (an IPv6 network) where nobody is known."""
    if denial.principal is not None:
        return ("account", str(denial.principal.id))
    return ("address", make_address_key(address=denial.remote_address))


def _note(names: dict[str, None], name: str) -> None:
    if name and len(names) < MAX_EXAMPLES:
        names[name] = None

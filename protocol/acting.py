"""On whose behalf this thread or task acts now, for what is recorded far from where that is known.

Set at the edges: around each command with its principal, around each request of the console with whoever is signed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from msgspec import Struct

from protocol.ports import Principal


class Acting(Struct, frozen=True, kw_only=True):
    """Who acts, and under which trace."""

    find_principal: Callable[[], Principal | None]
    """Asked only when something is recorded: it may query."""
    trace_id: str
    remote_address: str | None = None
    request: str = ""
    """What of the console is asked for: method and path."""


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


@contextmanager
def acting(
    *,
    find_principal: Callable[[], Principal | None],
    trace_id: str,
    remote_address: str | None = None,
    request: str = "",
) -> Iterator[None]:
    """Whatever is done within is done on this principal's behalf."""
    token = _acting.set(
        Acting(find_principal=find_principal, trace_id=trace_id, remote_address=remote_address, request=request)
    )
    try:
        yield
    finally:
        _acting.reset(token)


def get_acting() -> Acting | None:
    """Who acts; ``None``: the server itself, or a command line."""
    return _acting.get()

"""The evidence of the signed command that is being run, for whoever records its acts.

The kernel keeps it while the command runs, in whatever thread that is, so that no service has to pass it on by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

Evidence = Mapping[str, str]
"""JSON; what is in it is its verifier's."""
NONE: Evidence = MappingProxyType({})

_evidence: ContextVar[Evidence] = ContextVar("evidence", default=NONE)


def get_evidence() -> Evidence:
    """Of the signed command that is being run here; empty where it is not signed."""
    return _evidence.get()


@contextmanager
def keep_evidence(evidence: Evidence) -> Iterator[None]:
    """Let this be the evidence of what is done inside."""
    token = _evidence.set(evidence)
    try:
        yield
    finally:
        _evidence.reset(token)

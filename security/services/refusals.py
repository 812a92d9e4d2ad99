"""A refused sign-in to the console, or by whoever else asks Django, put on record before it is told."""

from __future__ import annotations

from protocol import denials
from protocol.errors import MCPError, SecurityError
from protocol.link import make_trace_id
from protocol.ports import Door


def record_refused_sign_in(error: SecurityError, *, remote_address: str | None, subject: str) -> MCPError:
    """What to tell: the error, or that it could not be recorded. ``subject`` is what was refused."""
    denial = denials.make_denial(
        error,
        door=Door.CONSOLE,
        remote_address=remote_address,
        principal=None,
        kind="credentials",
        subject=subject,
        trace_id=make_trace_id(),
    )
    return denials.record_here(denial, error)

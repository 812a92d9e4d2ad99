"""What is told of a failure: a refusal for security's sake, only once it is on record.

Called wherever a failure becomes an answer. What the event says, and what is counted together, is the recorder's matter
(``protocol.ports``). Who showed no credential, a limit that was reached, and what does not exist or may not be seen, is
recorded and not waited for: of the last nobody is to learn by the time it takes which of both it is.
"""

from __future__ import annotations

import asyncio

from protocol import ports
from protocol.domain.messages import Authentication
from protocol.errors import AccessDenied, MCPError
from protocol.ports import Denial, Door, Principal


def make_denial(
    error: MCPError,
    *,
    door: Door,
    remote_address: str | None,
    principal: Principal | None,
    kind: str,
    subject: str,
    trace_id: str,
) -> Denial | None:
    """The error as what is recorded of it; ``None``: it denies nothing."""
    if not error.is_recorded:
        return None
    return Denial(
        code=AccessDenied.code if error.denied_action else error.code,
        door=door,
        remote_address=remote_address,
        principal=principal,
        kind=kind,
        subject=subject,
        action=error.denied_action or str(error.details.get("action", "")),
        trace_id=trace_id,
        is_awaited=error.waits_for_record,
    )


async def record(denial: Denial | None, failure: MCPError) -> MCPError:
    """What to answer with: the failure, once its denial (if it is one) is on record; else why it cannot be."""
    if denial is not None:
        recorded = ports.get_recorder().submit_denial(denial)
        if not denial.is_awaited:
            return failure
        try:
            await asyncio.wrap_future(recorded)
        except MCPError as error:
            return error
    return failure


def record_here(denial: Denial | None, failure: MCPError) -> MCPError:
    """As ``record``, for a request's thread."""
    if denial is not None:
        try:
            ports.get_recorder().submit_denial(denial).result()
        except MCPError as error:
            return error
    return failure


def get_method(credentials: Authentication) -> str:
    """Which kind they are, as the wire names it."""
    return str(credentials.__struct_config__.tag)

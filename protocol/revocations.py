"""Open connections and what was revoked meanwhile: keys, tokens, accounts, rights, and the sessions themselves.

Asking costs one query for all connections of the process, until somewhere something was revoked or changed. It runs in
a thread of its own: a busy pool must not hold a revocation up.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from protocol import ports, sessions
from protocol.database_threads import get_watch_thread
from protocol.domain.states import Close
from protocol.link import Link


async def look_again(links: Iterable[Link]) -> None:
    """Close what was revoked since each link's mark with 4403, and give the others what they may now."""
    watched = [link for link in links if link.is_authenticated]
    if not watched:
        return
    mark = await get_watch_thread().run(ports.get_authenticator().get_mark)
    moved = [(link, link.principal) for link in watched if link.mark != mark and link.principal is not None]
    if not moved:
        return
    renewed, revoked = await get_watch_thread().run(
        _ask, [principal for _, principal in moved], [link.session_id for link, _ in moved]
    )
    for (link, before), now in zip(moved, renewed, strict=True):
        if link.session_id in revoked:
            link.close(Close.REVOKED)
        # One that authenticated again meanwhile is left for the next time.
        elif link.principal is before:
            if now is None or now.security_level_max.rank < link.connection.security_level.rank:
                link.close(Close.REVOKED)
            else:
                link.principal, link.mark = now, mark


def _ask(
    principals: Sequence[ports.Principal], session_ids: Sequence[uuid.UUID]
) -> tuple[list[ports.Principal | None], set[uuid.UUID]]:
    return ports.get_authenticator().renew(principals), sessions.list_revoked(session_ids=session_ids)

"""What the message kernel has recorded: denials, authentications, ends of sessions (``protocol.ports.Recorder``)."""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures import Future
from typing import Final

from protocol.acting import get_acting
from protocol.ports import Denial, Door, Principal, Resource
from security.domain.authorization import AccountPrincipal
from security.models import Account
from security.selectors import get_account_principal
from security.services import audit
from security.services.denials import settle_denials, submit_denial

AUTHENTICATE: Final = "accounts.authenticate"
SIGN_IN: Final = "console.sign_in"
SIGN_OUT: Final = "console.sign_out"
END_SESSION: Final = "sessions.end"
SHOWN_FACTOR: Final = "shown_factor"
"""Where the console's session has which second factor was shown, for the event of the sign-in."""
SEEN_SECONDS: Final = 3600.0
"""A credential that goes on coming from one address with HTTP requests is recorded once in so long, by each process."""
MAX_SEEN: Final = 10_000
"""Credentials and addresses that a process remembers; who has been quiet longest is recorded anew."""


class AuditRecorder:
    """See the module."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[uuid.UUID, str | None], float] = OrderedDict()
        self._lock = threading.Lock()

    def submit_denial(self, denial: Denial) -> Future[None]:
        """Record a denial; done once that is durable. See ``services.denials``."""
        return submit_denial(denial)

    def settle(self, *, timeout_seconds: float) -> bool:
        """Wait until all denials are on record. See ``services.denials``."""
        return settle_denials(timeout_seconds=timeout_seconds)

    def record_authentication(
        self, *, principal: Principal, door: Door, remote_address: str | None, resource: Resource, trace_id: str
    ) -> None:
        """Somebody showed good credentials, inside the caller's transaction."""
        data = {"door": door.value, "address": remote_address}
        if isinstance(principal, AccountPrincipal):
            data["method"] = principal.credential.value
        audit.record_event(
            action=AUTHENTICATE,
            principal=principal,
            resource=resource,
            outcome="accepted",
            trace_id=trace_id,
            data=data,
        )

    def note_request(self, *, principal: Principal, remote_address: str | None) -> None:
        """Record a credential when it is first seen from an address, and once an hour while it goes on."""
        key = (principal.credential_id, remote_address)
        now = time.monotonic()
        with self._lock:
            seen_at = self._seen.get(key)
            if seen_at is not None and now - seen_at < SEEN_SECONDS:
                return
        self.record_authentication(
            principal=principal,
            door=Door.HTTP,
            remote_address=remote_address,
            resource=Resource(kind="credential", name=str(principal.credential_id), owner_id=principal.id),
            trace_id="",
        )
        # Only now: what could not be recorded is tried again with the next request.
        with self._lock:
            self._seen[key] = now
            self._seen.move_to_end(key)
            while len(self._seen) > MAX_SEEN:
                self._seen.popitem(last=False)

    def record_session_end(self, *, session_id: uuid.UUID, account_id: uuid.UUID, close_code: int | None) -> None:
        """A session ended with its connection, inside the caller's transaction."""
        audit.record_event(
            action=END_SESSION,
            resource=Resource(kind="session", name=str(session_id), owner_id=account_id),
            outcome="lost" if close_code is None else "closed",
            data={"account_id": str(account_id), "close_code": close_code},
        )


def record_console(
    *,
    account: Account,
    action: str,
    remote_address: str | None,
    second_factor: str | None = None,
    method: str | None = None,
) -> None:
    """A person signed in to the console, or out of it."""
    data = {"door": Door.CONSOLE.value, "address": remote_address}
    if action == SIGN_IN:
        data |= {"second_factor": second_factor, "method": method}
    acting = get_acting()
    audit.record_event(
        action=action,
        principal=get_account_principal(account=account),
        resource=Resource(kind="account", name=account.username, owner_id=account.id),
        outcome="accepted" if action == SIGN_IN else "ended",
        trace_id="" if acting is None else acting.trace_id,
        data=data,
    )

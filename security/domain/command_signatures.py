"""``protocol.ports.SignatureVerifier`` over the keys that the principal carries.

What belongs here neither queries nor waits, since it runs on the event loop for every signed command.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final

from protocol.domain.signed import SignedMessage
from protocol.errors import Replayed, SignatureInvalid
from protocol.evidence import Evidence
from protocol.ports import Principal
from security.domain.authorization import AccountPrincipal
from security.domain.signatures import FRESH_FOR, SignedOnce, is_fresh, make_evidence, make_lines, read_key_id, verifies


class RegisteredKeysVerifier:
    """The account's registered keys count, as the principal carries them."""

    def start_session(self, *, session_id: uuid.UUID) -> SessionVerifier:
        """For the commands of this session."""
        return SessionVerifier(session_id=session_id)


class SessionVerifier:
    """The signed commands of one session."""

    def __init__(self, *, session_id: uuid.UUID) -> None:
        self._session_id: Final = str(session_id)
        self._taken = SignedOnce()

    def verify(self, *, principal: Principal, signed: SignedMessage, now: datetime) -> Evidence:
        """What is to be kept as evidence of the command.

        Raises:
            SignatureInvalid: no key that is registered for the account has signed it.
            Replayed: it was taken before, or its timestamp is too far from ``now``.
        """
        lines = make_lines(
            session_id=self._session_id,
            message_id=signed.message_id,
            message_type=signed.message_type,
            timestamp=signed.timestamp,
            security_level=signed.security_level.value,
            payload=signed.payload,
            metadata=signed.metadata,
        )
        data = lines.encode()
        public_key = _find_key(principal, signed.signature)
        if public_key is None or not verifies(signature=signed.signature, data=data, public_key=public_key):
            raise SignatureInvalid
        if not is_fresh(signed_at=signed.signed_at, now=now):
            raise Replayed(
                "The timestamp is too far from the server's clock.",
                details={"server_time": now, "tolerance_ms": FRESH_FOR.total_seconds() * 1000},
            )
        if not self._taken.take(lines=data, signed_at=signed.signed_at, now=now):
            raise Replayed("This signed command was taken before.")
        return make_evidence(lines=lines, signature=signed.signature)


def _find_key(principal: Principal, signature: str) -> bytes | None:
    key_id = read_key_id(signature)
    if not isinstance(principal, AccountPrincipal):
        return None
    return next((key.public_key for key in principal.command_keys if key.key_id == key_id), None)

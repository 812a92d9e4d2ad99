"""The protocol of one connection without any I/O: frames in, events out, bytes to send.

The caller feeds each frame to ``receive`` and acts on the event that it returns, then sends what ``take_output`` gives,
then closes if ``closing`` is set. What needs no database, policy or command is answered here: handshake, heartbeats,
whatever breaks the protocol. Clock and ids are given by the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from protocol.domain.activity import Activity, PendingCommand
from protocol.domain.channel import Agreed, KeyAgreer
from protocol.domain.codec import Codec, get_frame_bytes
from protocol.domain.handshake import Terms, describe_agreed, is_sealed, negotiate, offers_keys, read_rekey
from protocol.domain.judging import check_expected, decode_payload, judge_level, open_metadata
from protocol.domain.messages import (
    PROTOCOL_VERSION,
    Authentication,
    AuthenticationAnswer,
    ClientInfo,
    CommandPayload,
    Envelope,
    ErrorPayload,
    EventPayload,
    HandshakeRequest,
    Heartbeat,
    HeartbeatAnswer,
    KeyAgreementOffer,
    MessageType,
    RekeyAnswer,
    ResponsePayload,
    SecurityLevel,
    describe_error,
)
from protocol.domain.outgoing import Outgoing, mark_duplicate
from protocol.domain.received import (
    AuthenticationReceived,
    CommandReceived,
    HeartbeatReceived,
    MessageRefused,
    ReceivedEvent,
)
from protocol.domain.sealed import RekeyLimits, SealedWire
from protocol.domain.signed import take_signed
from protocol.domain.states import EXPECTED, Close, Event, State, get_next_state
from protocol.errors import (
    DuplicateId,
    FeatureNotAgreed,
    MCPError,
    Overloaded,
    SecurityError,
    UnexpectedMessage,
    UnsupportedType,
    VersionUnsupported,
)

OVERLOAD_RETRY_MS = 50
"""When a client over its window may try again: about what an answer takes."""
MAX_UNSENT_EVENTS = 1_024
MAX_REPEATS = 16
"""How often a command in flight may be sent again."""
CANCEL_COMMAND = "command.cancel"
"""The command that is taken although the window is full: it is what empties it."""
_FROM_CLIENT: frozenset[MessageType] = frozenset().union(*EXPECTED.values())


class Connection:
    """One connection's protocol state. Not thread-safe: it belongs to the event loop."""

    def __init__(
        self,
        *,
        codec: Codec,
        terms: Terms,
        keys: KeyAgreer,
        connection_id: str,
        now: Callable[[], datetime],
        tick: Callable[[], float],
        new_id: Callable[[], str],
        new_trace_id: Callable[[], str],
    ) -> None:
        self.codec = codec
        self.terms = terms
        self.connection_id = connection_id
        self.state = State.HANDSHAKING
        self.activity = Activity()
        self.features: frozenset[str] = frozenset()
        self.security_level = terms.minimum_level
        self.client = ClientInfo(name="")
        """What the client says that it is."""
        self.closing: Close | None = None
        self.max_in_flight = terms.limits.max_in_flight
        self._keys = keys
        self._is_broken = False
        """Something came that did not open: what comes after it is not looked at."""
        self._sealed: SealedWire | None = None
        """Once the handshake is done, where the level has messages sealed."""
        self._read_envelope: Callable[[bytes], Envelope] = codec.decode_envelope
        self._handshake_digest = hashlib.sha256()
        self._now, self._tick, self._new_trace_id = now, tick, new_trace_id
        self._outgoing = Outgoing(codec=codec, now=now, new_id=new_id, new_trace_id=new_trace_id)
        self._unsent_events = 0
        self._dropped_events = 0

    # What comes in

    def receive(self, frame: str | bytes) -> ReceivedEvent | None:
        """Take one frame. Errors of the protocol are answered here; ``None`` means that nothing is left to do.

        What security refuses is the caller's to answer, once it is on record.
        """
        if self.state is State.CLOSED or self._is_broken:
            # It crossed the closing frame, behind which nothing may be sent.
            return None
        activity = self.activity
        activity.message_count += 1
        activity.last_activity = self._now()
        message_id: str | None = None
        data = b""
        try:
            data = get_frame_bytes(self.codec, frame)
            if self.codec.is_array(data):
                self._refuse_array()
            envelope = self._read_envelope(data)
            message_id = envelope.id
            activity.last_message_id = message_id
            if envelope.type is MessageType.COMMAND and self.state is State.READY:
                return self._receive_command(envelope)
            return self._receive_control(envelope, data)
        except MCPError as error:
            if message_id is None and self._sealed is not None:
                return self._refuse_sealed(self._sealed.take_refused_id(), data, error)
            message_id = message_id or self.codec.find_id(data)
            if isinstance(error, SecurityError):
                return MessageRefused(message_id=message_id, error=error)
            # Not ``fail``: the message was never in flight, though a command of the same id may be.
            self.refuse(message_id, error)
            if isinstance(error, VersionUnsupported):
                self.close(Close.VERSION_UNSUPPORTED)
            return None

    def _refuse_sealed(self, opened_id: str | None, data: bytes, error: MCPError) -> MessageRefused | None:
        """Refuse what is no message though it opened; where it did not open, read nothing more and close.

        Nobody knows who sent what does not open, or what is missing from now on. Its id is anybody's as well: where a
        command of that id is in flight, its client must not take this for the answer.
        """
        self._is_broken = opened_id is None
        closing = Close.PROTOCOL_VIOLATED if self._is_broken else None
        found_id = opened_id or self.codec.find_id(data)
        message_id = None if found_id in self.activity.pending else found_id
        if isinstance(error, SecurityError):
            return MessageRefused(message_id=message_id, error=error, closing=closing)
        self.refuse(message_id, error, closing=closing)
        return None

    def _refuse_array(self) -> None:
        if self.state is State.HANDSHAKING:
            raise UnexpectedMessage("The handshake comes alone in its frame.")
        raise FeatureNotAgreed("Batches were not agreed.", details={"feature": "batch"})

    def _receive_command(self, envelope: Envelope) -> CommandReceived:
        pending = self.activity.pending
        metadata = open_metadata(self.codec, envelope)
        level = judge_level(envelope, agreed=self.security_level)
        signed = take_signed(self.codec, envelope) if level is SecurityLevel.CRITICAL else None
        payload = decode_payload(self.codec, envelope, CommandPayload)
        running = pending.get(envelope.id)
        if running is not None and (running.command != payload.command or running.repeats >= MAX_REPEATS):
            raise DuplicateId("A command of this id is still in flight.")
        if running is None and len(pending) >= self.max_in_flight and payload.command != CANCEL_COMMAND:
            raise Overloaded(
                f"More than {self.max_in_flight} commands are in flight.", retry_after_ms=OVERLOAD_RETRY_MS
            )
        assert self.activity.last_activity is not None  # noqa: S101  # set by receive()
        entry = running or PendingCommand(
            message_id=envelope.id,
            command=payload.command,
            received_at=self.activity.last_activity,
            received_tick=self._tick(),
        )
        pending[envelope.id] = entry
        return CommandReceived(
            message_id=envelope.id,
            command=payload.command,
            arguments=payload.arguments,
            metadata=metadata,
            security_level=level,
            signed=signed,
            pending=entry,
            is_repeated=running is not None,
        )

    def _receive_control(self, envelope: Envelope, frame: bytes) -> ReceivedEvent | None:
        if envelope.type not in _FROM_CLIENT:
            raise UnsupportedType(f"The server takes no {envelope.type.value}.", details={"type": envelope.type.value})
        is_rekey = envelope.type is MessageType.HANDSHAKE and self._sealed is not None and self.state is State.READY
        if not is_rekey:
            check_expected(envelope.type, state=self.state)
        if envelope.id in self.activity.pending:
            raise DuplicateId("A command of this id is still in flight.")
        open_metadata(self.codec, envelope)
        judge_level(envelope, agreed=self.security_level)
        if envelope.type is MessageType.HEARTBEAT:
            heartbeat = decode_payload(self.codec, envelope, Heartbeat)
            self._outgoing.put(
                MessageType.HEARTBEAT, HeartbeatAnswer(server_time=self._now()), correlation_id=envelope.id
            )
            return HeartbeatReceived(ack=heartbeat.ack)
        if envelope.type is MessageType.HANDSHAKE:
            if is_rekey:
                self._change_keys(envelope, frame)
            else:
                self._shake_hands(envelope, frame)
            return None
        credentials: Authentication = decode_payload(self.codec, envelope, Authentication)  # type: ignore[arg-type]  # a union is no type to mypy
        return AuthenticationReceived(message_id=envelope.id, credentials=credentials)

    # The handshake

    def _shake_hands(self, envelope: Envelope, frame: bytes) -> None:
        request = decode_payload(self.codec, envelope, HandshakeRequest)
        agreement = negotiate(request=request, terms=self.terms, connection_id=self.connection_id)
        answer, channel = agreement.answer, None
        if offers_keys(request.key_agreement):
            agreed = self._agree(request.key_agreement, frame, answer.security_level, None)
            answer, channel = msgspec.structs.replace(answer, key_agreement=describe_agreed(agreed)), agreed.channel
        self.client = request.client
        self.features = agreement.features
        self.security_level = answer.security_level
        self.max_in_flight = answer.limits.max_in_flight
        self._outgoing.peer_max_size = request.max_message_size
        self._move(Event.SHOOK_HANDS)
        self._handshake_digest.update(frame)
        self._handshake_digest.update(self._outgoing.put(MessageType.HANDSHAKE, answer, correlation_id=envelope.id))
        if channel is not None and is_sealed(self.security_level):
            self._sealed = SealedWire(codec=self.codec, level=self.security_level, channel=channel, tick=self._tick())
            self._outgoing.seal_from_now(self._sealed)
            self._read_envelope = self._sealed.open

    def _agree(self, offer: KeyAgreementOffer, frame: bytes, level: SecurityLevel, old: bytes | None) -> Agreed:
        return self._keys.agree(
            public_key=offer.public_key,
            client_frame=frame,
            connection_id=self.connection_id,
            protocol_version=PROTOCOL_VERSION,
            security_level=level.value,
            previous_hash=old,
        )

    def _change_keys(self, envelope: Envelope, frame: bytes) -> None:
        """Agree on new keys: what is sent after the answer is sealed under them."""
        sealed = self._sealed
        assert sealed is not None  # noqa: S101  # else it is no re-key
        offer = read_rekey(self.codec, envelope)
        sealed.check_may_rekey()
        agreed = self._agree(offer, frame, self.security_level, sealed.transcript_hash)
        self._outgoing.put(
            MessageType.HANDSHAKE,
            RekeyAnswer(key_agreement=describe_agreed(agreed)),
            correlation_id=envelope.id,
            switch_to=agreed.channel,
        )
        sealed.expect(agreed.channel, tick=self._tick())

    def ask_for_rekey(self, limits: RekeyLimits) -> bool:
        """Tell the client, once, that new keys are due; whether that was done now."""
        sealed = self._sealed
        if sealed is None or self.state is not State.READY or not sealed.is_rekey_due(tick=self._tick(), limits=limits):
            return False
        sealed.is_rekey_asked_for = self.emit("session.rekey_due", {"key_id": sealed.newest_key_id})
        return sealed.is_rekey_asked_for

    def accept_authentication(self, message_id: str, answer: AuthenticationAnswer) -> None:
        """Answer credentials that were found good; the first time, the connection becomes ready."""
        if self.state is State.AUTHENTICATING:
            self._move(Event.AUTHENTICATED)
            self._move(Event.SYNCHRONIZED)
        self._outgoing.put(MessageType.AUTHENTICATION, answer, correlation_id=message_id)

    def get_handshake_sha256(self) -> str:
        """Hex SHA-256 of both handshake frames, client's then server's."""
        return self._handshake_digest.hexdigest()

    # What goes out

    def respond(self, message_id: str, payload: ResponsePayload, *, sequence: int | None = None) -> None:
        """The terminal answer of a command that was done."""
        self._settle(message_id)
        self._outgoing.put(MessageType.RESPONSE, payload, correlation_id=message_id, sequence=sequence)

    def answer(self, message_id: str, payload: ResponsePayload | ErrorPayload) -> None:
        """The terminal answer of a command, whichever it is."""
        self._settle(message_id)
        self.repeat(message_id, payload)

    def fail(
        self, message_id: str | None, error: MCPError, *, trace_id: str | None = None, sequence: int | None = None
    ) -> None:
        """The terminal answer of a command that was not done, or of a message that is none."""
        if message_id is not None:
            self._settle(message_id)
        self.refuse(message_id, error, trace_id=trace_id, sequence=sequence)

    def refuse(
        self,
        message_id: str | None,
        error: MCPError,
        *,
        trace_id: str | None = None,
        sequence: int | None = None,
        closing: Close | None = None,
    ) -> None:
        """Answer a message that was never in flight, and close after it where that is what ``closing`` says."""
        self.activity.error_count += 1
        payload = describe_error(error, trace_id=trace_id or self._new_trace_id())
        self._outgoing.put(MessageType.ERROR, payload, correlation_id=message_id, sequence=sequence)
        if closing is not None:
            self.close(closing)

    def deliver(self, message_type: MessageType, payload: bytes, *, correlation_id: str, sequence: int) -> None:
        """Send a numbered message out of the outbox; ``payload`` is its payload as JSON."""
        repeats = self._settle(correlation_id)
        if message_type is MessageType.ERROR:
            self.activity.error_count += 1
        self._outgoing.put(message_type, msgspec.Raw(payload), correlation_id=correlation_id, sequence=sequence)
        for _ in range(repeats):
            self._outgoing.put(message_type, mark_duplicate(message_type, payload), correlation_id=correlation_id)

    def emit(self, event: str, data: Any, *, correlation_id: str | None = None) -> bool:
        """Send an event; ``False`` where it was dropped.

        That is where its command has its terminal answer already, after which none may follow, where it is larger than
        the client takes, or where the reader is too far behind: then ``session.lagged`` follows once it has caught up.
        """
        if correlation_id is not None and correlation_id not in self.activity.pending:
            return False
        if self._unsent_events >= MAX_UNSENT_EVENTS:
            self._dropped_events += 1
            return False
        if not self._outgoing.put(
            MessageType.EVENT, EventPayload(event=event, data=data), correlation_id=correlation_id
        ):
            return False
        self._unsent_events += 1
        return True

    def begin_drain(self) -> None:
        """Take no new command from now on."""
        if self.state not in (State.DRAINING, State.CLOSED):
            self._move(Event.DRAIN_BEGAN)

    def close(self, reason: Close) -> None:
        """Ask the caller to close the socket once the output is sent. The first reason stands."""
        if self.closing is None:
            self.closing = reason
            self._move(Event.ENDED)

    def take_output(self) -> list[bytes]:
        """The encoded messages to send, oldest first; they are the caller's from now on."""
        output = self._outgoing.take()
        self._unsent_events = 0
        if self._dropped_events and self.state is not State.CLOSED:
            dropped, self._dropped_events = self._dropped_events, 0
            self._outgoing.put(
                MessageType.EVENT, EventPayload("session.lagged", {"dropped": dropped}), correlation_id=None
            )
        return output

    def has_output(self) -> bool:
        return bool(self._outgoing)

    @property
    def output_bytes(self) -> int:
        """How much waits in ``take_output``."""
        return self._outgoing.size_bytes

    def repeat(self, message_id: str, payload: ResponsePayload | ErrorPayload) -> None:
        """Answer a command that was sent again while in flight; the first one's answer is still to come."""
        message_type = MessageType.ERROR if isinstance(payload, ErrorPayload) else MessageType.RESPONSE
        if message_type is MessageType.ERROR:
            self.activity.error_count += 1
        self._outgoing.put(message_type, payload, correlation_id=message_id)

    def _settle(self, message_id: str) -> int:
        """Take the command as answered; how often it was sent again meanwhile."""
        entry = self.activity.pending.pop(message_id, None)
        if entry is None:
            return 0
        self.activity.latencies_seconds.append(self._tick() - entry.received_tick)
        return entry.repeats

    def _move(self, event: Event) -> None:
        self.state = get_next_state(self.state, event)

"""One live connection of this process: the sans-I/O ``Connection``, its socket's sending half, its session, its tasks.

Belongs to the event loop; only ``emit`` may be called from other threads. Who reads the socket is ``consumers``, who
delivers wake-ups and keeps the time is ``hub``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

import uuid_utils
from django.utils import timezone

from protocol import admission, denials, dispatch, ports
from protocol.answers import Answers
from protocol.database_threads import get_database_threads
from protocol.domain.activity import PendingCommand, Stage
from protocol.domain.codec import Codec
from protocol.domain.connection import Connection
from protocol.domain.handshake import Terms
from protocol.domain.messages import AuthenticationAnswer
from protocol.domain.received import AuthenticationReceived, CommandReceived, MessageRefused
from protocol.domain.signed import SignedMessage
from protocol.domain.states import Close, State
from protocol.errors import AuthenticationFailed, DuplicateId, MCPError, RateLimited, TokenExpired
from protocol.evidence import NONE, Evidence
from protocol.manners import Manners, count_sign_ins
from protocol.ports import Denial
from protocol.registry import Command, CommandContext
from protocol.wakeups import RiddenEvent
from protocol.writer import Send, SocketWriter

logger = logging.getLogger(__name__)


def make_id() -> str:
    """A UUIDv7 as text."""
    return str(uuid_utils.uuid7())


def make_trace_id() -> str:
    """32 hexadecimal digits, as W3C Trace Context has them."""
    return os.urandom(16).hex()


def get_now() -> datetime:
    """The time in UTC, to the millisecond as the wire has it."""
    now = timezone.now()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Owner(Protocol):
    """What a link needs of the process's hub."""

    channel: str
    """Where wake-ups for this process arrive; empty as long as none can."""

    def add_session(self, link: Link) -> None:
        """The link has its session: wake-ups for it are for this link."""

    def keep_expiry(self, link: Link) -> None:
        """Say of a credential that it ends soon, if it does."""

    async def wait_for_channel(self) -> None:
        """Wait for a moment until wake-ups can arrive."""

    def get_degraded(self) -> list[str]:
        """The dependencies that this process has to do without now."""

    def request_delivery(self, link: Link) -> None:
        """Read the session's outbox soon."""


class Link:
    """See the module."""

    def __init__(
        self,
        *,
        codec: Codec,
        terms: Terms,
        send: Send,
        abort: Callable[[], None] | None,
        remote_address: str | None,
        owner: Owner,
    ) -> None:
        self.connection = Connection(
            codec=codec,
            terms=terms,
            keys=ports.get_key_agreer(),
            connection_id=make_id(),
            now=get_now,
            tick=time.monotonic,
            new_id=make_id,
            new_trace_id=make_trace_id,
        )
        self.remote_address = remote_address
        self.opened_tick = self.seen_tick = time.monotonic()
        """When the socket opened, and when its peer last said anything; monotonic seconds."""
        self.answers = Answers(
            connection=self.connection, peer=self, request_delivery=lambda: owner.request_delivery(self)
        )
        self.principal: ports.Principal | None = None
        self.mark = 0
        """The authenticator's, from before the principal was made: once it moves, the principal is looked at again."""
        self.warned_of: datetime | None = None
        """Of which end of its credential the client was told that it is near."""
        self.session_id = uuid.UUID(int=0)
        self.client_features: frozenset[str] = frozenset()
        self.writer = SocketWriter(connection=self.connection, send=send, abort=abort)
        self._signatures: ports.SessionSignatures | None = None
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._tasks: set[asyncio.Task[None]] = set()
        self.manners = Manners(close=lambda: self.close(Close.OVERLOADED))
        self._is_leaving = False
        self._is_stopping = False
        self._judgement: asyncio.Task[None] | None = None

    # What came in

    def start_command(self, event: CommandReceived) -> None:
        """Run a command: at once if it can be, else as a task of this link. Its answer goes to the connection."""
        assert self.principal is not None  # noqa: S101  # no command is received before authentication
        try:
            is_counted = ports.get_limiter().try_take(principal=self.principal, command=event.command)
        except RateLimited as error:
            self._fail_early(event, error, trace_id=make_trace_id())
            return
        if is_counted:
            self._run_counted(event, self.principal)
        else:
            self._start(self._count_and_run(event, self.principal))

    async def _count_and_run(self, event: CommandReceived, principal: ports.Principal) -> None:
        try:
            await ports.get_limiter().take(principal=principal, command=event.command)
        except RateLimited as error:
            self._fail_early(event, error, trace_id=make_trace_id())
        else:
            # Whoever it is by now.
            self._run_counted(event, self.principal or principal)
        await self.writer.flush()

    def _run_counted(self, event: CommandReceived, principal: ports.Principal) -> None:
        connection = self.connection
        trace_id = make_trace_id()
        try:
            if principal.expires_at is not None and principal.expires_at <= event.pending.received_at:
                raise TokenExpired
            evidence = NONE if event.signed is None else self._verify(principal, event.signed)
            event.pending.stage = Stage.RESOLUTION
            command = dispatch.resolve(name=event.command, principal=principal)
            if command.is_changing:
                self.answers.check_acknowledged()
            elif event.is_repeated:
                raise DuplicateId("A command of this id is still in flight.")
            event.pending.stage = Stage.VALIDATION
            arguments = dispatch.decode_arguments(command=command, codec=connection.codec, raw=event.arguments)
            timeout_ms = event.metadata.timeout_ms or connection.terms.limits.timeout_ms
            context = CommandContext(
                principal=principal,
                peer=self,
                message_id=event.message_id,
                security_level=event.security_level,
                priority=event.metadata.priority,
                deadline=event.pending.received_at + timedelta(milliseconds=timeout_ms),
                trace_id=trace_id,
                idempotency_key=event.metadata.idempotency_key,
                evidence=evidence,
            )
            event.pending.stage = Stage.PROCESSING
            if dispatch.may_run_inline(command):
                result = dispatch.run_inline(command, context, arguments)
                self._respond(command, event.message_id, result)
                return
        except Exception as error:  # noqa: BLE001  # the edge: everything becomes an answer
            failure = dispatch.translate_failure(error, trace_id=trace_id, command=event.command)
            self._fail_early(event, failure, trace_id=trace_id)
            return
        self._start(self._run_command(command, context, arguments, event.pending if event.is_repeated else None))

    def _fail_early(self, event: CommandReceived, failure: MCPError, *, trace_id: str) -> None:
        """Answer a command that was not begun."""
        self._tell(
            failure,
            kind="command",
            subject=event.command,
            trace_id=trace_id,
            answer=lambda told: self.answers.fail(
                event.message_id, told, trace_id=trace_id, is_repeated=event.is_repeated
            ),
        )

    def _verify(self, principal: ports.Principal, signed: SignedMessage) -> Evidence:
        if self._signatures is None:
            self._signatures = ports.get_signature_verifier().start_session(session_id=self.session_id)
        return self._signatures.verify(principal=principal, signed=signed, now=timezone.now())

    async def _run_command(
        self, command: Command, context: CommandContext, arguments: Any, repeated: PendingCommand | None
    ) -> None:
        try:
            result = await dispatch.run(command, context, arguments)
            if repeated is not None:
                self.answers.settle_repeated(context, result, repeated)
            elif not self.answers.settle_late(context, result):
                self._respond(command, context.message_id, result)
        except Exception as error:  # noqa: BLE001  # the edge: everything becomes an answer
            failure = dispatch.translate_failure(error, trace_id=context.trace_id, command=command.name)
            denial = self._make_denial(failure, kind="command", subject=command.name, trace_id=context.trace_id)
            failure = await denials.record(denial, failure)
            self.answers.fail(context.message_id, failure, trace_id=context.trace_id, is_repeated=repeated is not None)
        await self.writer.flush()

    def _respond(self, command: Command, message_id: str, result: Any) -> None:
        self.answers.respond(command, message_id, result)
        if self._is_leaving:
            self.close(Close.ASKED_FOR)

    def start_authentication(self, event: AuthenticationReceived) -> None:
        """Judge credentials in a database thread; the connection becomes ready by it, or says that it failed."""
        if self._judgement is not None and not self._judgement.done():
            # One guess at a time: a second one in flight would race the first for the session.
            self._tell(
                AuthenticationFailed(),
                kind="credentials",
                subject=denials.get_method(event.credentials),
                trace_id=make_trace_id(),
                answer=lambda told: self.connection.fail(event.message_id, told),
            )
            return
        self._judgement = self._start(self._authenticate(event))

    async def _authenticate(self, event: AuthenticationReceived) -> None:
        connection = self.connection
        trace_id = make_trace_id()
        try:
            await self._owner.wait_for_channel()
            async with count_sign_ins(address=self.remote_address):
                answer = await get_database_threads().run(self._judge, event, trace_id)
        except Exception as error:  # noqa: BLE001  # the edge: everything becomes an answer
            failure = dispatch.translate_failure(error, trace_id=trace_id, command="authentication")
            method = denials.get_method(event.credentials)
            denial = self._make_denial(failure, kind="credentials", subject=method, trace_id=trace_id)
            failure = await denials.record(denial, failure)
            connection.fail(event.message_id, failure, trace_id=trace_id)
            if isinstance(failure, RateLimited) and self.principal is None:
                self.close(Close.OVERLOADED)
        else:
            if connection.state in (State.AUTHENTICATING, State.READY) and not self._is_stopping:
                self.client_features = connection.features
                self._owner.add_session(self)
                connection.accept_authentication(event.message_id, answer)
                self._owner.keep_expiry(self)
        await self.writer.flush()

    def refuse(self, event: MessageRefused) -> None:
        """Answer a message that security refuses."""
        trace_id = make_trace_id()

        def answer(told: MCPError) -> None:
            self.connection.refuse(event.message_id, told, trace_id=trace_id, closing=event.closing)

        self._tell(event.error, kind="message", subject="", trace_id=trace_id, answer=answer)

    def _tell(self, failure: MCPError, *, answer: Callable[[MCPError], None], **what: str) -> None:
        """Answer with a failure: a denial once it is on record, anything else at once."""
        denial = self._make_denial(failure, **what)
        if denial is None:
            answer(failure)
        else:
            self._start(self._tell_on_record(denial, failure, answer))

    async def _tell_on_record(self, denial: Denial, failure: MCPError, answer: Callable[[MCPError], None]) -> None:
        answer(await denials.record(denial, failure))
        await self.writer.flush()

    def _make_denial(self, failure: MCPError, **what: str) -> Denial | None:
        door, address = ports.Door.WEBSOCKET, self.remote_address
        return denials.make_denial(failure, door=door, remote_address=address, principal=self.principal, **what)

    def _judge(self, event: AuthenticationReceived, trace_id: str) -> AuthenticationAnswer:
        admitted = admission.admit(
            credentials=event.credentials,
            connection=self.connection,
            principal=self.principal,
            session_id=self.session_id,
            channel=self._owner.channel,
            remote_address=self.remote_address,
            trace_id=trace_id,
        )
        # Noted at once: whatever becomes of the answer, the session is ended with the link.
        self.session_id = admitted.session_id
        self.principal, self.mark = admitted.principal, admitted.mark
        return admitted.answer

    @property
    def is_authenticated(self) -> bool:
        """Whether it has its session, and its socket is not closing."""
        return self.principal is not None and self.connection.state in (State.READY, State.DRAINING)

    # What goes out

    def emit(self, event: str, data: Any, *, correlation_id: str | None) -> None:
        """Send an event; from any thread, without blocking. It may be dropped, as every event may."""
        if threading.get_ident() == self._thread_id:
            self._emit(event, data, correlation_id)
        else:
            self._loop.call_soon_threadsafe(self._emit, event, data, correlation_id)

    def _emit(self, event: str, data: Any, correlation_id: str | None) -> None:
        if self.connection.state is not State.CLOSED and self.connection.emit(
            event, data, correlation_id=correlation_id
        ):
            self.flush_soon()

    def emit_ridden(self, event: RiddenEvent) -> None:
        """Send an event that came with a wake-up, if the client agreed to its kind."""
        if event.feature is None or event.feature in self.client_features:
            self._emit(event.event, event.data, event.correlation_id)

    def flush_soon(self) -> None:
        """Send what the connection has to send, without waiting for it."""
        if not self.writer.is_flushing:
            self._start(self.writer.flush())

    # What commands may do

    def close_after_answer(self) -> None:
        """Close with 1000 once the current command is answered."""
        self._is_leaving = True

    def describe(self) -> dict[str, Any]:
        """The specification's ``ProtocolState``."""
        activity = self.connection.activity
        return {
            "is_connected": self.connection.state is not State.CLOSED,
            "state": self.connection.state,
            "session_id": str(self.session_id),
            "last_message_id": activity.last_message_id,
            "message_count": activity.message_count,
            "pending_commands": activity.describe_pending(),
            "last_activity": activity.last_activity,
            "latency_ms": activity.get_latency_percentiles_ms(),
            "error_count": activity.error_count,
            "degraded": self._owner.get_degraded(),
        }

    # The end

    def close(self, reason: Close) -> None:
        """Close the socket for this reason once what is unsent is sent."""
        if self.connection.state is not State.CLOSED:
            self.connection.close(reason)
            self.flush_soon()

    def cut_off(self) -> None:
        """Drop a connection whose peer does not read: a closing frame would wait behind what it has not read."""
        self.connection.close(Close.OVERLOADED)
        self.writer.cut_off()

    async def stop(self) -> None:
        """Cancel this link's tasks. A command in a database thread is finished there; only its answer has no reader.

        Credentials that are being judged are waited for: they may open a session, which somebody has to end.
        """
        self._is_stopping = True
        for task in list(self._tasks):
            if task is not self._judgement:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        # The server says that the peer is gone by an OSError of its own; there is nobody left to tell.
        if error is not None and not isinstance(error, (OSError, MCPError)):
            logger.error("A task of session %s failed", self.session_id, exc_info=error)

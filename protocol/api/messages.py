"""``POST messages/``: the protocol's envelopes without a connection (protocol.md section 1).

One message or an array, answered in the same response by messages, in the same order and encoding. A message by itself
gives the response its status too; with an array it is 200, and each message's outcome is in its answer.
"""

from __future__ import annotations

import asyncio
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from protocol import denials, dispatch, ports
from protocol.api.authentication import Caller, authenticate, get_remote_address, make_credentials
from protocol.api.doors import Call, run_call
from protocol.api.openapi import Access, Content, Description, Reply
from protocol.api.requests import ApiView, read_body
from protocol.api.responses import JSON_MEDIA_TYPE
from protocol.domain.codec import JSON_CODEC, MESSAGEPACK_CODEC, Codec
from protocol.domain.messages import (
    ErrorPayload,
    MessageType,
    OutgoingMessage,
    ResponsePayload,
    describe_error,
)
from protocol.domain.outgoing import make_message
from protocol.domain.stateless import StatelessCommand, open_command, split_batch
from protocol.errors import AuthenticationFailed, AuthenticationRequired, InvalidMessage, MCPError, get_error_table
from protocol.link import get_now, make_id, make_trace_id
from protocol.ports import Door

MAX_BATCH: Final = 64
CODECS: Final[dict[str, Codec]] = {JSON_MEDIA_TYPE: JSON_CODEC, "application/msgpack": MESSAGEPACK_CODEC}


EXAMPLE: Final = {
    "id": "m-1",
    "type": "command",
    "payload": {"command": "session.ping", "arguments": {}},
    "timestamp": "2026-11-20T16:31:00.123Z",
}
ANSWER_EXAMPLE: Final = {
    "id": "01a1fa78-65e1-76b4-b530-821efc884487",
    "type": "response",
    "payload": {"command": "session.ping", "result": {"server_time": "2026-11-20T16:31:00.125Z"}},
    "timestamp": "2026-11-20T16:31:00.125Z",
    "metadata": {"correlation_id": "m-1"},
}


class MessagesView(ApiView):
    """The protocol over plain HTTP."""

    def describe_operation(self, method: str) -> Description:  # noqa: ARG002  # it has one
        """As the document tells it."""
        either = {"oneOf": [{"type": "object"}, {"type": "array", "minItems": 1}]}
        return Description(
            id="postMessages",
            tag="protocol",
            summary=f"The protocol's own envelopes, one or an array of at most {MAX_BATCH}, without a connection.",
            text="Each is a `command` message of the protocol and is answered by a `response` or an `error`, in order. "
            "An error that answers a single message gives the response its status too; an array is answered 200, with "
            "each message's outcome in its answer. Without `Authorization` each message carries its own "
            "`security.auth_token`.",
            access=Access.OPTIONAL,
            error_media_types=tuple(CODECS),
            body=Content(schema=either, media_types=tuple(CODECS), example=EXAMPLE),
            replies={
                200: Reply(
                    description="The answers, in the order and the encoding of the messages.",
                    content=Content(schema=either, media_types=tuple(CODECS), example=ANSWER_EXAMPLE),
                )
            },
        )

    async def post(self, request: HttpRequest) -> HttpResponseBase:
        """Judge one message, or each of an array, and answer them all."""
        body = read_body(request, media_types=tuple(CODECS))
        codec = CODECS[request.content_type or JSON_MEDIA_TYPE]
        caller = await self.get_caller(request) if "Authorization" in request.headers else None
        if not codec.is_array(body):
            answer = await self._answer(request, codec, body, caller)
            return HttpResponse(
                codec.encode(answer), status=get_status(answer.payload), content_type=request.content_type
            )
        frames = split_batch(codec=codec, body=body, max_batch=MAX_BATCH)
        answers = await asyncio.gather(*(self._answer(request, codec, frame, caller) for frame in frames))
        return HttpResponse(codec.encode(answers), content_type=request.content_type)

    async def _answer(self, request: HttpRequest, codec: Codec, frame: bytes, caller: Caller | None) -> OutgoingMessage:
        """One message's terminal answer; whatever goes wrong becomes an error message."""
        trace_id = make_trace_id()
        message_id: str | None = None
        command = ""
        payload: ResponsePayload | ErrorPayload
        try:
            try:
                opened = open_command(codec=codec, frame=frame)
            except MCPError:
                # What is no command costs as much to refuse as one.
                if caller is not None:
                    await self.count_command(caller, "")
                raise
            message_id, command = opened.message_id, opened.command
            caller = await self._find_caller(request, opened, caller)
            await self.count_command(caller, opened.command)
            payload = await _run(opened, caller, codec=codec, trace_id=trace_id)
        except Exception as error:  # noqa: BLE001  # the edge: everything becomes an answer
            failure = dispatch.translate_failure(error, trace_id=trace_id, command="a message")
            denial = denials.make_denial(
                failure,
                door=Door.HTTP,
                remote_address=get_remote_address(request),
                principal=None if caller is None else caller.principal,
                kind="command",
                subject=command,
                trace_id=trace_id,
            )
            failure = await denials.record(denial, failure)
            payload = describe_error(failure, trace_id=trace_id)
        return make_answer(payload, correlation_id=message_id or codec.find_id(frame))

    async def _find_caller(self, request: HttpRequest, opened: StatelessCommand, caller: Caller | None) -> Caller:
        """Who sent this message: the request's caller, or the one whose token it carries."""
        if caller is not None:
            if opened.auth_token is not None:
                raise InvalidMessage(
                    "The request is authenticated by its header already.", details={"path": "security.auth_token"}
                )
            return caller
        if opened.auth_token is None:
            raise AuthenticationRequired
        address = get_remote_address(request)
        try:
            return await authenticate(credentials=make_credentials(opened.auth_token), remote_address=address)
        except AuthenticationFailed:
            await ports.get_limiter().take_address(counted=ports.StrangersCount.SIGN_INS, address=address)
            raise


async def _run(
    opened: StatelessCommand, caller: Caller, *, codec: Codec, trace_id: str
) -> ResponsePayload | ErrorPayload:
    call = Call(
        caller=caller,
        name=opened.command,
        trace_id=trace_id,
        message_id=opened.message_id,
        priority=opened.metadata.priority,
        security_level=opened.security_level,
        timeout_ms=opened.metadata.timeout_ms,
        idempotency_key=opened.metadata.idempotency_key,
        received_at=get_now(),
    )
    return await run_call(
        call,
        decode=lambda command: dispatch.decode_arguments(command=command, codec=codec, raw=opened.arguments),
    )


def get_status(payload: ResponsePayload | ErrorPayload) -> int:
    """The HTTP status of what the payload says."""
    return get_error_table()[payload.code].http_status if isinstance(payload, ErrorPayload) else 200


def make_answer(payload: ResponsePayload | ErrorPayload, *, correlation_id: str | None) -> OutgoingMessage:
    """The payload in its envelope."""
    message_type = MessageType.ERROR if isinstance(payload, ErrorPayload) else MessageType.RESPONSE
    return make_message(message_type, payload, message_id=make_id(), now=get_now(), correlation_id=correlation_id)

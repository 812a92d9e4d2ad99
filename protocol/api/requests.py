"""What every view of the API does with a request: who it is from, how much is left to them, and errors as problems.

REST framework's view does the routing by method and knows what the OpenAPI document needs; its authentication, parsers
and renderers are not used, since they are synchronous and know none of the protocol's types.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from rest_framework.views import APIView

from protocol import denials, dispatch, ports
from protocol.api import throttling
from protocol.api.authentication import Caller, authenticate, get_remote_address, read_bearer
from protocol.api.openapi import ViewSchema
from protocol.api.problems import TRACE_HEADER, respond_with_error
from protocol.api.responses import JSON_MEDIA_TYPE
from protocol.domain.codec import MAX_NESTING, count_names, has_deep_json
from protocol.errors import (
    AuthenticationFailed,
    InvalidArguments,
    InvalidMessage,
    MCPError,
    MessageTooLarge,
    UnsupportedType,
)
from protocol.link import make_trace_id
from protocol.ports import Allowance, Door, Principal

_TRACEPARENT: Final = re.compile(r"\A[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")
"""W3C Trace Context, level 1."""


class HttpRefused(Exception):
    """A refusal with a status that HTTP has for it, and the table of codes has not."""

    def __init__(self, error: MCPError, *, status: int) -> None:
        super().__init__(error.code)
        self.error = error
        self.status = status


class ApiView(APIView):
    """An asynchronous view of the API; a subclass has ``async def get``, ``post`` … with the request and the path.

    And ``describe_operation(method)``, of which the OpenAPI document is made.
    """

    schema = ViewSchema()

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()

    trace_id: str
    """Of this request: the caller's own, if it sent ``traceparent``."""
    principal: Principal | None = None
    """Who asks, once that is known."""
    allowance: Allowance | None = None
    """What is left to the caller, to be told in the answer's headers."""
    asked: tuple[Caller, str] | None = None
    """Who asked for which command, where it is that caller's limits that are told."""

    async def dispatch(self, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]  # ours is asynchronous
        """Answer the request; whatever goes wrong becomes a problem."""
        self.trace_id = read_trace_id(request)
        response: HttpResponseBase
        try:
            handler = self._find_handler(request)
            if handler is None:
                response = self._refuse_method(request)
            else:
                response = await handler(request, **kwargs)
        except HttpRefused as refused:
            response = respond_with_error(refused.error, trace_id=self.trace_id, status=refused.status)
        except Exception as error:  # noqa: BLE001  # the edge: everything becomes an answer
            failure = dispatch.translate_failure(error, trace_id=self.trace_id, command=request.path)
            failure = await self._record(request, failure)
            response = respond_with_error(failure, trace_id=self.trace_id)
        response[TRACE_HEADER] = self.trace_id
        # A caller's mistake is no news of the server's; what failed here was logged with its trace.
        response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001  # Django has no public way to say so
        response.headers.setdefault("Cache-Control", "no-store")
        if self.allowance is None and self.asked is not None:
            caller, command = self.asked
            self.allowance = ports.get_limiter().get_allowance(principal=caller.principal, command=command)
        if self.allowance is not None:
            throttling.add_headers(response, self.allowance)
        return response

    async def _record(self, request: HttpRequest, failure: MCPError) -> MCPError:
        """What to answer with: a denial is told once it is on record."""
        denial = denials.make_denial(
            failure,
            door=Door.HTTP,
            remote_address=get_remote_address(request),
            principal=self.principal,
            kind="request",
            subject=f"{request.method} {request.path}",
            trace_id=self.trace_id,
        )
        return await denials.record(denial, failure)

    def _find_handler(self, request: HttpRequest) -> Any:
        method = (request.method or "").lower()
        return getattr(self, method, None) if method in self.http_method_names and method != "options" else None

    def _refuse_method(self, request: HttpRequest) -> HttpResponse:
        if request.method == "OPTIONS":
            response = HttpResponse(status=204)
        else:
            error = UnsupportedType("This address does not take that method.")
            response = respond_with_error(error, trace_id=self.trace_id, status=405)
        response["Allow"] = ", ".join(self.allowed_methods)
        return response

    async def get_caller(self, request: HttpRequest) -> Caller:
        """Who asks. What they ask for is counted by whoever runs it (``count_command``).

        Raises:
            AuthenticationRequired: nobody says so.
            AuthenticationFailed: the credentials are not accepted.
            RateLimited: one refused credential too many from this address.
        """
        address = get_remote_address(request)
        credentials = read_bearer(request.headers.get("Authorization", ""))
        try:
            caller = await authenticate(credentials=credentials, remote_address=address)
        except AuthenticationFailed:
            # Counted only where it fails: who is known is not held to the failures of others behind one address.
            self.allowance = await ports.get_limiter().take_address(
                counted=ports.StrangersCount.SIGN_INS, address=address
            )
            raise
        self.principal = caller.principal
        return caller

    async def count_command(self, caller: Caller, command: str) -> None:
        """Count a command of the caller's; the answer tells what is left.

        Raises:
            RateLimited: one too many.
        """
        self.asked = caller, command
        await dispatch.count_command(principal=caller.principal, command=command)


def read_trace_id(request: HttpRequest) -> str:
    """The trace that the caller says it is in (``traceparent``), or a new one's."""
    found = _TRACEPARENT.match(request.headers.get("traceparent", ""))
    return found.group(1) if found and found.group(1).strip("0") else make_trace_id()


def read_body(request: HttpRequest, *, media_types: tuple[str, ...] = (JSON_MEDIA_TYPE,)) -> bytes:
    """The request's body.

    Raises:
        HttpRefused: it is none of these (415).
        MessageTooLarge: it is larger than a message may be.
        InvalidMessage: the caller is gone before it was all sent.
    """
    if request.content_type not in media_types:
        error = UnsupportedType(f"Send {' or '.join(media_types)}.", details={"media_types": list(media_types)})
        raise HttpRefused(error, status=415)
    limit = settings.MCP.max_message_size_bytes
    try:
        body = request.body
    except RequestDataTooBig as error:
        raise MessageTooLarge(details={"max_message_size": limit}) from error
    except UnreadablePostError as error:
        raise InvalidMessage("The body did not arrive whole.") from error
    if len(body) > limit:
        raise MessageTooLarge(details={"max_message_size": limit})
    return body


def read_object(request: HttpRequest) -> dict[str, Any]:
    """The JSON object of a request's body; nothing is an empty one.

    Raises:
        InvalidMessage: it is not JSON, or nested too deep.
        InvalidArguments: it is not an object.
    """
    body = read_body(request) if request.content_type or request.headers.get("Content-Length", "0") != "0" else b""
    if not body:
        return {}
    if has_deep_json(body):
        raise InvalidMessage("The body is nested too deep.", details={"max_nesting": MAX_NESTING})
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage("The body is not JSON.") from error
    if not isinstance(value, dict):
        raise InvalidArguments("The body is a JSON object.", details={"path": ""})
    if count_names(body) != len(value):
        # A proxy in between may have read the first where we would read the last.
        raise InvalidArguments("The body names something twice.", details={"path": ""})
    return value

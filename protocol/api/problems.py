"""Errors over HTTP: RFC 9457 problem details with the protocol's codes, from the one table of errors."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from msgspec import Struct

from protocol.domain.messages import ErrorPayload, describe_error
from protocol.errors import MCPError, UnknownCommand, get_error_table
from protocol.link import make_trace_id

PROBLEM_MEDIA_TYPE = "application/problem+json"
TRACE_HEADER = "X-Trace-Id"
TYPE_PREFIX = "urn:mcp:error:"


class Problem(Struct, frozen=True, kw_only=True):
    """What went wrong (RFC 9457), with the members that every error of the protocol has."""

    type: str
    """``urn:mcp:error:`` and the code."""
    title: str
    """What the code means, the same each time."""
    status: int
    detail: str
    """What happened this time, for people."""
    code: str
    """Stable; what programs read."""
    category: str
    retryable: bool
    """Whether the same request may be sent again as it is."""
    retry_after_ms: int | None
    details: dict[str, Any]
    trace_id: str


def make_problem(payload: ErrorPayload, *, status: int | None = None) -> Problem:
    """The problem that says what the payload says; ``status`` is the code's own where it is not given."""
    error = get_error_table().get(payload.code)
    return Problem(
        type=f"{TYPE_PREFIX}{payload.code}",
        title=payload.message if error is None else error.get_default_message(),
        status=status or (500 if error is None else error.http_status),
        detail=payload.message,
        code=payload.code,
        category=payload.category,
        retryable=payload.retryable,
        retry_after_ms=payload.retry_after_ms,
        details=payload.details,
        trace_id=payload.trace_id,
    )


def respond_with_problem(problem: Problem) -> HttpResponse:
    """The problem as a response, with ``Retry-After`` and ``WWW-Authenticate`` where they belong."""
    response = HttpResponse(msgspec.json.encode(problem), status=problem.status, content_type=PROBLEM_MEDIA_TYPE)
    if problem.retry_after_ms is not None:
        response["Retry-After"] = str(math.ceil(problem.retry_after_ms / 1000))
    if problem.status == 401:  # RFC 9110, section 15.5.2
        response["WWW-Authenticate"] = 'Bearer realm="mcp"'
    return response


def respond_with_error(error: MCPError, *, trace_id: str, status: int | None = None) -> HttpResponse:
    """An error as a response."""
    return respond_with_problem(make_problem(describe_error(error, trace_id=trace_id), status=status))


@csrf_exempt  # as the API's own views: its callers have no cookie, and a form's page is no answer to them
def show_not_found(_request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
    """The answer under the API's addresses where there is none."""
    trace_id = make_trace_id()
    response = respond_with_error(UnknownCommand("There is nothing at this address."), trace_id=trace_id)
    response[TRACE_HEADER] = trace_id
    return response

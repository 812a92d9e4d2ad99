"""What is answered where something failed outside of any page: in the console's look, or as a problem under ``/api/``.

Never with a trace, a setting, or what was asked: of a failure of ours an id that finds it in the log, and nothing else.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from protocol.api.problems import TRACE_HEADER, respond_with_error
from protocol.errors import AccessDenied, InternalError, InvalidMessage, MCPError, MessageTooLarge, UnknownCommand
from protocol.link import make_trace_id

logger = logging.getLogger(__name__)

API_PREFIX: Final = "/api/"
TEMPLATE: Final = "console/error.html"
TEXTS: Final = {
    HTTPStatus.BAD_REQUEST: ("That request cannot be answered", "It is not as a browser sends it."),
    HTTPStatus.FORBIDDEN: ("You may not do that", "Or the page was open for too long: load it again and repeat it."),
    HTTPStatus.NOT_FOUND: ("There is nothing here", "The address is wrong, or what it named is gone."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("That is too large", "Send less at once."),
    HTTPStatus.INTERNAL_SERVER_ERROR: ("Something failed here", "It was logged. With this id it is found in the log:"),
}
ERRORS: Final[dict[HTTPStatus, type[MCPError]]] = {
    HTTPStatus.BAD_REQUEST: InvalidMessage,
    HTTPStatus.FORBIDDEN: AccessDenied,
    HTTPStatus.NOT_FOUND: UnknownCommand,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: MessageTooLarge,
    HTTPStatus.INTERNAL_SERVER_ERROR: InternalError,
}


def show_bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's ``handler400``; a body that is too large is 413."""
    is_large = isinstance(exception, RequestDataTooBig)
    return respond(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE if is_large else HTTPStatus.BAD_REQUEST)


def show_forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001  # as Django calls it
    """Django's ``handler403``."""
    return respond(request, HTTPStatus.FORBIDDEN)


def show_csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001  # as Django calls it
    """Django's ``CSRF_FAILURE_VIEW``; the log has the reason."""
    return respond(request, HTTPStatus.FORBIDDEN)


def show_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001  # as Django calls it
    """Django's ``handler404``."""
    return respond(request, HTTPStatus.NOT_FOUND)


def show_failure(request: HttpRequest) -> HttpResponse:
    """Django's ``handler500``. Django logs the failure itself, with its traceback."""
    trace_id = make_trace_id()
    logger.error("What failed at %s %s has the trace id %s", request.method, request.path, trace_id)
    return respond(request, HTTPStatus.INTERNAL_SERVER_ERROR, trace_id=trace_id)


def respond(request: HttpRequest, status: HTTPStatus, *, trace_id: str = "") -> HttpResponse:
    """The page, or the problem, of that status."""
    if request.path.startswith(API_PREFIX):
        problem_id = trace_id or make_trace_id()
        response = respond_with_error(ERRORS[status](), trace_id=problem_id, status=status)
        response[TRACE_HEADER] = problem_id
        return response
    title, text = TEXTS[status]
    context = {**make_context(request), "title": title, "text": text, "trace_id": trace_id}
    return HttpResponse(render_to_string(TEMPLATE, context), status=status)


def make_context(request: HttpRequest) -> dict[str, Any]:
    """What the console's pages are drawn with, for nobody: neither session nor database is asked, which may be away."""
    bare = HttpRequest()
    bare.path = request.path
    bare.META["SCRIPT_NAME"] = ""
    bare.user = AnonymousUser()
    return {**admin.site.each_context(bare), "request": bare, "user": bare.user}

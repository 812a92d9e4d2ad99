"""From where HTTP is answered at all: the rules of addresses, before anything else is done with a request.

Two pieces of middleware: one for the rules for everyone, first in line, and one for those of whoever is signed in to
the console. What shows a key, a token or a password is judged where that is judged. ``/healthz`` and ``/readyz`` are
answered whatever the rules are: what watches the server is not locked out by a rule about its users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from protocol import denials, ports
from protocol.api.authentication import get_remote_address
from protocol.api.problems import TRACE_HEADER, respond_with_error
from protocol.database_threads import get_watch_thread
from protocol.domain.addresses import parse_address
from protocol.errors import IpDenied, MCPError
from protocol.link import make_trace_id
from security import selectors

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
API_PREFIX: Final = "/api/"

Respond = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def guard_strangers(respond: Respond) -> Respond:
    """Refuse whoever comes from where nobody may."""
    if iscoroutinefunction(respond):

        async def guard_async(request: HttpRequest) -> HttpResponseBase:
            refusal = await _find_refusal_async(request)
            if refusal is not None:
                refusal = await denials.record(_make_denial(request, refusal), refusal)
            response: HttpResponseBase = await respond(request) if refusal is None else refuse(request, refusal)
            return response

        return guard_async

    def guard(request: HttpRequest) -> HttpResponseBase:
        refusal = _find_refusal(request)
        if refusal is not None:
            refusal = denials.record_here(_make_denial(request, refusal), refusal)
        response: HttpResponseBase = respond(request) if refusal is None else refuse(request, refusal)
        return response

    return guard


async def _find_refusal_async(request: HttpRequest) -> MCPError | None:
    address = get_remote_address(request)
    is_refused = ports.get_address_guard().is_refused_now(remote_address=address)
    if is_refused is None:
        return await get_watch_thread().run(_find_refusal, request)
    return IpDenied() if is_refused and request.path not in OPEN_PATHS else None


def _find_refusal(request: HttpRequest) -> MCPError | None:
    if request.path in OPEN_PATHS:
        return None
    try:
        is_refused = ports.get_address_guard().is_refused(remote_address=get_remote_address(request))
    except MCPError as error:
        return error
    return IpDenied() if is_refused else None


@sync_and_async_middleware
def guard_accounts(respond: Respond) -> Respond:
    """Refuse who is signed in to the console from where its account may not come; behind Django's authentication."""
    if iscoroutinefunction(respond):

        async def guard_async(request: HttpRequest) -> HttpResponseBase:
            if _has_account_rules() and _is_refused(request, await request.auser()):
                return refuse(request, await denials.record(_make_denial(request, IpDenied()), IpDenied()))
            response: HttpResponseBase = await respond(request)
            return response

        return guard_async

    def guard(request: HttpRequest) -> HttpResponseBase:
        if _has_account_rules() and _is_refused(request, request.user):
            return refuse(request, denials.record_here(_make_denial(request, IpDenied()), IpDenied()))
        response: HttpResponseBase = respond(request)
        return response

    return guard


def _make_denial(request: HttpRequest, failure: MCPError) -> ports.Denial | None:
    is_api = request.path.startswith(API_PREFIX)
    return denials.make_denial(
        failure,
        door=ports.Door.HTTP if is_api else ports.Door.CONSOLE,
        remote_address=get_remote_address(request),
        principal=None,
        kind="request",
        subject=request.path,
        trace_id=make_trace_id(),
    )


def refuse(request: HttpRequest, error: MCPError) -> HttpResponse:
    """The refusal: a problem under the API's addresses, a line of text elsewhere."""
    if request.path.startswith(API_PREFIX):
        trace_id = make_trace_id()
        response = respond_with_error(error, trace_id=trace_id)
        response[TRACE_HEADER] = trace_id
        return response
    return HttpResponse(f"{error.message}\n", status=error.http_status, content_type="text/plain; charset=utf-8")


def _has_account_rules() -> bool:
    # Nearly always none, and then nobody's session has to be read. The first piece has read the rules just now.
    known = selectors.get_last_known_address_rules()
    return known is not None and bool(known.accounts)


def _is_refused(request: HttpRequest, user: Any) -> bool:
    known = selectors.get_last_known_address_rules()
    if known is None or not user.is_authenticated:
        return False
    address = parse_address(get_remote_address(request))
    return not known.judge(address, account_id=user.pk).is_passed

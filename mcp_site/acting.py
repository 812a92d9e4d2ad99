"""Whoever is signed in to the console acts in its requests; and what the console refuses is on record.

Around everything but the API, whose callers show their own credentials with each request.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from protocol import denials
from protocol.acting import acting
from protocol.api.authentication import get_remote_address
from protocol.errors import AccessDenied
from protocol.link import make_trace_id
from protocol.ports import Door, Principal
from security.selectors import get_account_principal

API_PREFIX: Final = "/api/"


@sync_and_async_middleware
def acting_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """See the module."""
    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> HttpResponseBase:
            if request.path.startswith(API_PREFIX):
                response: HttpResponseBase = await get_response(request)
                return response
            trace_id = make_trace_id()
            with act(request, trace_id=trace_id):
                response = await get_response(request)
            if response.status_code == 403:
                return await sync_to_async(record_refusal)(request, response, trace_id=trace_id)
            return response

        return amiddleware

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path.startswith(API_PREFIX):
            response: HttpResponseBase = get_response(request)
            return response
        trace_id = make_trace_id()
        with act(request, trace_id=trace_id):
            response = get_response(request)
        return record_refusal(request, response, trace_id=trace_id) if response.status_code == 403 else response

    return middleware


def act(request: HttpRequest, *, trace_id: str) -> AbstractContextManager[None]:
    """Whatever is done within is done for who is signed in."""
    return acting(
        find_principal=lambda: find_principal(request),
        trace_id=trace_id,
        remote_address=get_remote_address(request),
        request=f"{request.method} {request.path}",
    )


def find_principal(request: HttpRequest) -> Principal | None:
    """Who is signed in."""
    user = getattr(request, "user", None)
    return get_account_principal(account=user) if user is not None and user.is_authenticated else None


def record_refusal(request: HttpRequest, response: HttpResponseBase, *, trace_id: str) -> HttpResponseBase:
    """The response, once its refusal is on record; another where it cannot be."""
    refusal = AccessDenied()
    denial = denials.make_denial(
        refusal,
        door=Door.CONSOLE,
        remote_address=get_remote_address(request),
        principal=find_principal(request),
        kind="request",
        subject=f"{request.method} {request.path}",
        trace_id=trace_id,
    )
    told = denials.record_here(denial, refusal)
    return response if told is refusal else HttpResponse(told.message, status=told.http_status)

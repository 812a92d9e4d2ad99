"""Signing on to the console by an OpenID Connect provider: the way there, and the way back.

The browser is led there by a page, not by a redirect of a form: the policy of what forms may be sent to holds for
redirects too, those among the provider's own sites included. The views await the provider on the event loop; what needs
the database is one hop before and one after.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from protocol.errors import AuthenticationFailed, IpDenied, SecurityError
from security import services
from security.admin.login import (
    AGAIN,
    PROVIDER_BACKEND,
    REFUSED,
    Pending,
    complete_sign_in,
    lead_on,
)
from security.domain.openid import Provider, ProviderIdentity, Refusal
from security.errors import LockedOut
from security.services import SignOnRefused

logger = logging.getLogger(__name__)

SESSION_KEY: Final = "sign_on"
SIGN_ON_SECONDS: Final = 600
"""How long somebody may take at the provider."""
AGAIN_SECONDS: Final = 60
"""How old what was shown to the provider may be where who is signed in signs in once more."""
MAX_CODE_LENGTH: Final = 4096
TEMPLATE: Final = "admin/security/sign_on/lead.html"
SUBJECT: Final = "OpenID Connect"

TOLD: Final = {
    Refusal.NOT_BEGUN: "again",
    Refusal.WRONG_STATE: "again",
    Refusal.PROVIDER_REFUSED: "provider",
    Refusal.CODE_REFUSED: "not_taken",
    Refusal.TOKEN_INVALID: "not_taken",
}
"""What the person is told, a key of ``login.REFUSALS``; of all others that there is no account."""

_clients: dict[Provider, Any] = {}
"""This process's client: one, but where tests change the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What the session remembers of a sign-on, until its way back, once."""

    state: str
    nonce: str
    code_verifier: str
    redirect_uri: str
    next_url: str
    max_age_seconds: int | None
    until: float


@require_POST
@never_cache
async def begin_sign_on(request: HttpRequest) -> HttpResponse:
    """Lead the browser to the provider."""
    # In a thread of its own: the first time it imports Authlib.
    client = await asyncio.to_thread(get_client)
    redirect_uri = request.build_absolute_uri(reverse("admin:sign_on_callback"))
    next_url = choose_next(request, request.POST.get(REDIRECT_FIELD_NAME, ""))
    max_age_seconds = AGAIN_SECONDS if AGAIN in request.POST else None
    try:
        beginning = await client.begin(redirect_uri=redirect_uri, max_age_seconds=max_age_seconds)
    except load_openid().ProviderUnavailable as error:
        return tell_away(error, next_url)
    begun = Begun(
        state=beginning.state,
        nonce=beginning.nonce,
        code_verifier=beginning.code_verifier,
        redirect_uri=redirect_uri,
        next_url=next_url,
        max_age_seconds=max_age_seconds,
        until=time.time() + SIGN_ON_SECONDS,
    )
    return await sync_to_async(show_way)(request, begun, beginning.url)


@require_GET
@never_cache
async def finish_sign_on(request: HttpRequest) -> HttpResponse:
    """The browser came back, with what the provider gave it."""
    client = await asyncio.to_thread(get_client)
    begun = await sync_to_async(take_begun)(request)
    next_url = begun.next_url if isinstance(begun, Begun) else ""
    try:
        if not isinstance(begun, Begun):
            raise begun
        identity = await client.finish(
            code=read_code(request, begun),
            redirect_uri=begun.redirect_uri,
            nonce=begun.nonce,
            code_verifier=begun.code_verifier,
            max_age_seconds=begun.max_age_seconds,
        )
        return await sync_to_async(let_in)(request, identity, next_url)
    except load_openid().ProviderUnavailable as error:
        return tell_away(error, next_url)
    except (SignOnRefused, SecurityError) as error:
        return await sync_to_async(refuse)(request, error, next_url)


def show_way(request: HttpRequest, begun: Begun, url: str) -> HttpResponse:
    """The page that leads there by itself."""
    request.session[SESSION_KEY] = asdict(begun)
    provider = get_provider()
    context = {**admin.site.each_context(request), "title": "Sign on", "url": url, "provider": provider.name}
    return TemplateResponse(request, TEMPLATE, context).render()


def take_begun(request: HttpRequest) -> Begun | SignOnRefused | LockedOut:
    """The sign-on that this browser began, which is over with that; or why it is not taken.

    One that nobody began is counted for nobody: any page can have a browser come here.
    """
    found = request.session.pop(SESSION_KEY, None)
    if found is None or found["until"] < time.time():
        return SignOnRefused(Refusal.NOT_BEGUN)
    try:
        services.begin_attempt(remote_address=request.META.get("REMOTE_ADDR"))
    except LockedOut as error:
        return error
    return Begun(**found)


def read_code(request: HttpRequest, begun: Begun) -> str:
    """The code that the browser brought.

    Raises:
        SignOnRefused: it is of another sign-on or from another provider (RFC 9207), or there is none.
    """
    if not constant_time_compare(request.GET.get("state", ""), begun.state):
        raise SignOnRefused(Refusal.WRONG_STATE)
    if request.GET.get("iss", settings.MCP.oidc_issuer) != settings.MCP.oidc_issuer:
        raise SignOnRefused(Refusal.WRONG_STATE)
    code = request.GET.get("code", "")
    if "error" in request.GET or not 0 < len(code) <= MAX_CODE_LENGTH:
        raise SignOnRefused(Refusal.PROVIDER_REFUSED)
    return code


def let_in(request: HttpRequest, identity: ProviderIdentity, next_url: str) -> HttpResponse:
    """Sign in whom the provider named, or lead on to the second factor."""
    account = services.accept_identity(identity=identity, remote_address=request.META.get("REMOTE_ADDR"))
    pending = Pending(
        account=account,
        next_url=next_url,
        backend=PROVIDER_BACKEND,
        # A provider that has known the person for a day has not asked who they are.
        shown_at=min(identity.authenticated_at or 0, int(time.time())),
    )
    if identity.has_second_factor:
        return complete_sign_in(request, pending, second_factor="the provider's")
    return lead_on(request, pending)


def refuse(request: HttpRequest, error: SignOnRefused | SecurityError, next_url: str) -> HttpResponse:
    """Put on record that a sign-on was not taken, and tell the person as much as they may know."""
    address = request.META.get("REMOTE_ADDR")
    if isinstance(error, SignOnRefused):
        logger.info("Sign-on of %s from %s refused: %s", error.account_id or "(unknown)", address, error.reason)
        told = services.record_refused_sign_in(
            AuthenticationFailed(), remote_address=address, subject=f"{SUBJECT}: {error.reason}"
        )
        if isinstance(told, AuthenticationFailed):
            return tell(TOLD.get(error.reason, "no_account"), next_url)
    else:
        told = services.record_refused_sign_in(error, remote_address=address, subject=SUBJECT)
        if isinstance(told, LockedOut):
            return tell("locked_out", next_url)
        if isinstance(told, IpDenied):
            return tell("ip_denied", next_url)
    raise told


def tell_away(error: Exception, next_url: str) -> HttpResponse:
    logger.warning("The OpenID Connect provider is not to be had: %s", error)
    return tell("away", next_url)


def tell(refusal: str, next_url: str) -> HttpResponse:
    """Back to the sign-in page, which says it."""
    query = {REFUSED: refusal, **({REDIRECT_FIELD_NAME: next_url} if next_url else {})}
    return redirect(reverse("admin:login", query=query))


def choose_next(request: HttpRequest, text: str) -> str:
    """Where to go on: what was asked for, where that is of this server, else the overview."""
    is_ours = url_has_allowed_host_and_scheme(
        text, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return text if is_ours else reverse("admin:index")


def get_provider() -> Provider:
    """The configured provider.

    Raises:
        Http404: there is none.
    """
    provider = settings.MCP.openid_provider
    if provider is None:
        raise Http404
    return provider


def get_client() -> Any:
    """The client of the configured provider.

    Raises:
        Http404: there is none.
    """
    provider = get_provider()
    if provider not in _clients:
        _clients.clear()
        _clients[provider] = load_openid().ProviderClient(provider)
    return _clients[provider]


def load_openid() -> Any:
    """``services.openid``, at its first use."""
    from security.services import openid  # noqa: PLC0415  # Authlib is slow to import

    return openid

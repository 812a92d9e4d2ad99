"""The console's sign-in: name and password, then the second factor where the account needs one.

Between the two nobody is signed in: the session only remembers whose password was right, for a while. Every way in ends
in ``complete_sign_in``.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any, Final, cast

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import REDIRECT_FIELD_NAME, load_backend, login
from django.contrib.auth.views import LoginView
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from unfold.forms import AuthenticationForm

from protocol.api.authentication import get_remote_address
from protocol.errors import AuthenticationFailed, IpDenied, SecurityError
from security import services
from security.domain.openid import Provider
from security.errors import LockedOut
from security.models import Account

PASSWORD_BACKEND: Final = "security.backends.PasswordBackend"  # noqa: S105  # the name of a class
PROVIDER_BACKEND: Final = "security.backends.ProviderBackend"
PENDING: Final = "pending_sign_in"
PENDING_SECONDS: Final = 600
"""How long the second step may come after the first."""
FRESH_AT: Final = "fresh_at"
FRESH_SECONDS: Final = 600
"""How long after a sign-in second factors may be changed."""
AGAIN: Final = "again"
"""In the query: who is signed in signs in once more."""

REFUSED: Final = "refused"
"""In the query: one of the next, why a sign-on by the provider was not taken."""
REFUSALS: Final = {
    "away": "The provider does not answer. Sign in with your password, or try again later.",
    "again": "The sign-on was not begun in this browser, or took too long. Begin again.",
    "provider": "The provider did not let you sign on.",
    "not_taken": "The sign-on was not taken. Begin again; where that does not help, ask whoever runs this server.",
    "no_account": "No account of this server lets you in. Ask whoever runs it.",
    "ip_denied": "This account is not let in from your address.",
    "locked_out": "Too many sign-ins from your address were wrong. Try again later.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Somebody whose first factor was right, and whose second is still to come."""

    account: Account
    next_url: str
    backend: str = PASSWORD_BACKEND
    shown_at: int | None = None
    """When the person showed who they are, in seconds since 1970, where that was not just now; 0: nobody knows."""


class ConsoleLoginForm(AuthenticationForm):
    """unfold's, which asks the services, and says of a lock-out that it is one, and for how long."""

    def clean(self) -> dict[str, Any]:
        username, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if username is None or not password:
            return cast("dict[str, Any]", self.cleaned_data)
        address = get_remote_address(self.request)
        try:
            account = services.check_first_factor(username=username, password=password, remote_address=address)
        except SecurityError as error:
            told = services.record_refused_sign_in(error, remote_address=address, subject="password")
            if isinstance(told, LockedOut):
                raise ValidationError(describe_lock(told), code="locked_out") from error
            if isinstance(told, IpDenied):
                raise ValidationError("This account is not let in from your address.", code="ip_denied") from error
            if isinstance(told, AuthenticationFailed):
                raise self.get_invalid_login_error() from error
            raise told from error
        self.confirm_login_allowed(account)
        self.user_cache = account
        return cast("dict[str, Any]", self.cleaned_data)


class ConsoleLoginView(LoginView):
    """Django's, which lets in whom the password is enough for, and leads others on."""

    def form_valid(self, form: Any) -> HttpResponse:
        return lead_on(self.request, Pending(account=form.get_user(), next_url=self.get_success_url()))


@never_cache
def show_login(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
    """In the place of ``AdminSite.login``."""
    is_asked = AGAIN in request.GET or REFUSED in request.GET
    if request.method == "GET" and admin.site.has_permission(request) and not is_asked:
        return redirect("admin:index")
    context = {
        **admin.site.each_context(request),
        "title": "Log in",
        "subtitle": None,
        "app_path": request.get_full_path(),
        "username": request.user.get_username(),
        **(extra_context or {}),
    }
    provider = settings.MCP.openid_provider
    if provider is not None:
        context["sign_on"] = describe_sign_on(request, provider=provider)
    if REDIRECT_FIELD_NAME not in request.GET and REDIRECT_FIELD_NAME not in request.POST:
        context[REDIRECT_FIELD_NAME] = reverse("admin:index")
    view = ConsoleLoginView.as_view(
        extra_context=context, authentication_form=ConsoleLoginForm, template_name="admin/login.html"
    )
    return view(request)


def begin_sign_in(request: HttpRequest, *, account: Account, next_url: str, backend: str = PASSWORD_BACKEND) -> None:
    """Remember that the first factor was right. Whoever was signed in by this session is so no longer."""
    request.session.flush()
    request.session[PENDING] = {
        "account": str(account.id),
        "stamp": account.get_session_auth_hash(),
        "until": time.time() + PENDING_SECONDS,
        "next": next_url,
        "backend": backend,
    }


def get_pending(request: HttpRequest) -> Pending | None:
    """Whose second factor is still to come; ``None``: nobody's, or too much time has passed, or something changed."""
    found = request.session.get(PENDING)
    if found is None or found["until"] < time.time():
        return None
    if found["backend"] not in settings.AUTHENTICATION_BACKENDS:
        return None
    account = load_backend(found["backend"]).get_user(uuid.UUID(found["account"]))
    if account is None or not account.is_active or not account.is_staff:
        return None
    if not constant_time_compare(account.get_session_auth_hash(), found["stamp"]):
        return None
    return Pending(account=account, next_url=found["next"], backend=found["backend"])


def complete_sign_in(request: HttpRequest, pending: Pending, *, second_factor: str | None = None) -> HttpResponse:
    """Sign in whose every step was right; the session gets a new key. ``second_factor`` is the kind that was shown."""
    sign_in(request, pending, second_factor=second_factor)
    return redirect(pending.next_url)


def sign_in(request: HttpRequest, pending: Pending, *, second_factor: str | None) -> None:
    """Have the session be the account's from now on."""
    request.session.pop(PENDING, None)
    # For the event of it, by Django's signal.
    request.session[services.SHOWN_FACTOR] = second_factor
    login(request, pending.account, backend=pending.backend)
    request.session[FRESH_AT] = int(time.time()) if pending.shown_at is None else pending.shown_at


def describe_sign_on(request: HttpRequest, *, provider: Provider) -> dict[str, Any]:
    """What the page says of signing on by the provider: its name, where to go on, why the last one was not taken."""
    refusal = request.GET.get(REFUSED, "")
    return {
        "name": provider.name,
        "next": request.GET.get(REDIRECT_FIELD_NAME, ""),
        "again": AGAIN in request.GET,
        "refusal": refusal if refusal in REFUSALS else "",
        "said": REFUSALS.get(refusal, ""),
    }


def is_fresh(request: HttpRequest) -> bool:
    """Whether who is signed in has shown everything just now, so that it may be changed."""
    return bool(time.time() - request.session.get(FRESH_AT, 0) <= FRESH_SECONDS)


def lead_on(request: HttpRequest, pending: Pending) -> HttpResponse:
    """Let in whom the first factor is enough for, and lead others to the second."""
    if not pending.account.needs_second_factor:
        return complete_sign_in(request, pending)
    begin_sign_in(request, account=pending.account, next_url=pending.next_url, backend=pending.backend)
    return redirect("admin:second_factor" if pending.account.has_second_factor else "admin:second_factor_begin")


def ask_again(next_url: str) -> HttpResponse:
    """To the sign-in, and back from there."""
    return redirect(reverse("admin:login", query={AGAIN: "1", REDIRECT_FIELD_NAME: next_url}))


def describe_lock(error: LockedOut) -> str:
    """That and for how long, in whole minutes or seconds, rounded up."""
    seconds = -(-(error.retry_after_ms or 0) // 1000)
    wait = f"{-(-seconds // 60)} min" if seconds > 60 else f"{seconds} s"
    return f"Too many wrong passwords came from your address. Try again in {wait}."


admin.site.login_form = ConsoleLoginForm
admin.site.login = show_login  # type: ignore[method-assign, assignment]  # the site is unfold's, made before any app of ours

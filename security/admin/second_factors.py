"""The console's pages of second factors: the sign-in's second step, setting one up, and one's own factors.

Secrets and recovery codes stand on the one page that answers what made them: in no message, cookie, session or log.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import logout, update_session_auth_hash
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from unfold.widgets import BASE_INPUT_CLASSES
from uuid_utils.compat import NIL

from protocol.api.authentication import get_remote_address
from protocol.errors import AuthenticationFailed, SecurityError
from protocol.link import make_trace_id
from security import selectors, services
from security.admin.login import (
    Pending,
    ask_again,
    complete_sign_in,
    describe_lock,
    get_pending,
    is_fresh,
    sign_in,
)
from security.admin.permissions import get_actor
from security.admin.sign_on import begin_sign_on, finish_sign_on
from security.domain.second_factor import MAX_CODE_LENGTH
from security.errors import LockedOut
from security.models import Account
from security.selectors import get_account_principal

CEREMONY: Final = "passkey_ceremony"
ENROLMENT: Final = "authenticator_app"
WRONG_CODE: Final = "This code is wrong, or was used before."
SIGN_IN_TEMPLATE: Final = "admin/security/second_factor/sign_in.html"
APP_TEMPLATE: Final = "admin/security/second_factor/app.html"
CODES_TEMPLATE: Final = "admin/security/second_factor/codes.html"
LIST_TEMPLATE: Final = "admin/security/second_factor/list.html"
PASSKEY_TEMPLATE: Final = "admin/security/second_factor/passkey.html"
PUBLIC_LAYOUT: Final = "unfold/layouts/unauthenticated.html"
CONSOLE_LAYOUT: Final = "admin/base_site.html"


class CodeForm(forms.Form):
    """A code of an authenticator app, or a recovery code."""

    code = forms.CharField(
        max_length=MAX_CODE_LENGTH,
        widget=forms.TextInput(
            attrs={"class": " ".join(BASE_INPUT_CLASSES), "autocomplete": "one-time-code", "autofocus": True}
        ),
    )


class PasskeyForm(forms.Form):
    """What the browser answered, as JSON; put in by a script."""

    credential = forms.JSONField(widget=forms.HiddenInput)
    name = forms.CharField(
        max_length=100,
        required=False,
        widget=forms.TextInput(attrs={"class": " ".join(BASE_INPUT_CLASSES), "placeholder": "Laptop"}),
    )


@method_decorator([never_cache, sensitive_post_parameters()], name="dispatch")
class SecretView(View):
    """A page that no cache keeps and no failure's report quotes."""

    def render(self, template: str, *, title: str, layout: str = CONSOLE_LAYOUT, **context: Any) -> HttpResponse:
        common = {**admin.site.each_context(self.request), "title": title, "layout": layout}
        return TemplateResponse(self.request, template, {**common, **context})


class SignInView(SecretView):
    """The second step of the sign-in: a code, or a passkey."""

    def get(self, request: HttpRequest) -> HttpResponse:
        pending = get_pending(request)
        return self._show(pending, CodeForm()) if pending else redirect("admin:login")

    def post(self, request: HttpRequest) -> HttpResponse:
        pending = get_pending(request)
        if pending is None:
            return redirect("admin:login")
        form = PasskeyForm(request.POST) if "credential" in request.POST else CodeForm(request.POST)
        if form.is_valid():
            try:
                self._check(pending.account, form)
            except SecurityError as error:
                form.add_error(None, self._explain(error))
            else:
                # As it is now: the account may have changed meanwhile.
                if get_pending(request) is None:
                    return redirect("admin:login")
                shown = "code" if isinstance(form, CodeForm) else "passkey"
                return complete_sign_in(request, pending, second_factor=shown)
        return self._show(pending, form)

    def _explain(self, error: SecurityError) -> ValidationError:
        address = get_remote_address(self.request)
        told = services.record_refused_sign_in(error, remote_address=address, subject="second factor")
        if isinstance(told, LockedOut):
            return ValidationError(describe_lock(told), code="locked_out")
        if isinstance(told, AuthenticationFailed):
            return ValidationError(WRONG_CODE, code="wrong_code")
        raise told from error

    def _check(self, account: Account, form: forms.Form) -> None:
        if isinstance(form, CodeForm):
            services.check_code(
                account=account,
                code=form.cleaned_data["code"],
                remote_address=get_remote_address(self.request),
            )
            return
        passkeys = load_passkeys()
        state = self.request.session.pop(CEREMONY, {})
        passkeys.check_passkey(
            account=account, site=get_site(self.request), state=state, answer=form.cleaned_data["credential"]
        )

    def _show(self, pending: Pending, form: forms.Form) -> HttpResponse:
        options = None
        if settings.MCP.webauthn and selectors.list_passkeys(account=pending.account):
            ceremony = load_passkeys().begin_check(account=pending.account, site=get_site(self.request))
            self.request.session[CEREMONY] = ceremony.state
            options = ceremony.options
        return self.render(
            SIGN_IN_TEMPLATE,
            title="Second factor",
            layout=PUBLIC_LAYOUT,
            form=form if isinstance(form, CodeForm) else CodeForm(),
            errors=form.non_field_errors(),
            has_app=selectors.has_authenticator_app(account=pending.account),
            options=options,
        )


class EnrolView(SecretView):
    """What setting up begins with: for who is signed in, and for whose sign-in needs a factor that is not there yet."""

    def find_account(self) -> tuple[Account, Pending | None] | None:
        """Who sets up, and whether that is in the middle of a sign-in; ``None``: nobody may."""
        pending = get_pending(self.request)
        if pending is not None:
            # Whoever has one shows it first.
            return None if pending.account.has_second_factor else (pending.account, pending)
        if admin.site.has_permission(self.request) and is_fresh(self.request):
            return get_actor(self.request), None
        return None

    def refuse(self) -> HttpResponse:
        return ask_again(reverse("admin:second_factors"))

    def finish(self, account: Account, pending: Pending | None, codes: list[str]) -> HttpResponse:
        """The session goes on with the new factor; the recovery codes are shown, if there are new ones."""
        if pending is not None:
            sign_in(self.request, pending, second_factor="set up")
        else:
            update_session_auth_hash(self.request, account)
        next_url = pending.next_url if pending else reverse("admin:second_factors")
        if not codes:
            return redirect(next_url)
        return self.render(CODES_TEMPLATE, title="Recovery codes", layout=PUBLIC_LAYOUT, codes=codes, next_url=next_url)


class BeginView(EnrolView):
    """Which kind to set up, where there is a choice; else straight on."""

    def get(self, request: HttpRequest) -> HttpResponse:
        found = self.find_account()
        if found is None:
            return self.refuse()
        return self.render(
            "admin/security/second_factor/begin.html",
            title="Set up a second factor",
            layout=PUBLIC_LAYOUT,
            is_required=found[1] is not None,
            has_webauthn=settings.MCP.webauthn,
        )


class AppView(EnrolView):
    """Set up an authenticator app. Each beginning makes a new secret: nobody sees one that was shown to another."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return redirect("admin:second_factors" if get_pending(request) is None else "admin:second_factor_begin")

    def post(self, request: HttpRequest) -> HttpResponse:
        found = self.find_account()
        if found is None:
            return self.refuse()
        account, pending = found
        if "code" not in request.POST:
            return self._begin(account, pending)
        form = CodeForm(request.POST)
        if form.is_valid():
            try:
                codes = services.confirm_enrolment(
                    account=account,
                    app_id=get_app_id(request),
                    code=form.cleaned_data["code"],
                    principal=get_account_principal(account=account),
                    trace_id=make_trace_id(),
                )
            except ValidationError as error:
                form.add_error("code", error)
            else:
                request.session.pop(ENROLMENT, None)
                return self.finish(account, pending, codes)
        return self._show(account, form)

    def _begin(self, account: Account, pending: Pending | None) -> HttpResponse:
        try:
            self.request.session[ENROLMENT] = str(services.begin_enrolment(account=account))
        except ValidationError as error:
            messages.error(self.request, error.messages[0])
            return redirect("admin:second_factors" if pending is None else "admin:login")
        return self._show(account, CodeForm())

    def _show(self, account: Account, form: CodeForm) -> HttpResponse:
        enrolment = services.get_enrolment(account=account, app_id=get_app_id(self.request))
        if enrolment is None:
            return redirect("admin:second_factors")
        return self.render(
            APP_TEMPLATE,
            title="Authenticator app",
            layout=PUBLIC_LAYOUT,
            form=form,
            secret=enrolment.secret,
            picture=draw_code(enrolment.uri),
        )


class PasskeyView(EnrolView):
    """Add a passkey."""

    def get(self, request: HttpRequest) -> HttpResponse:
        found = self.find_account()
        if found is None or not settings.MCP.webauthn:
            return self.refuse()
        return self._show(found[0], PasskeyForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        found = self.find_account()
        if found is None or not settings.MCP.webauthn:
            return self.refuse()
        account, pending = found
        form = PasskeyForm(request.POST)
        if form.is_valid():
            try:
                codes = load_passkeys().finish_registration(
                    account=account,
                    site=get_site(request),
                    name=form.cleaned_data["name"],
                    state=request.session.pop(CEREMONY, {}),
                    answer=form.cleaned_data["credential"],
                    principal=get_account_principal(account=account),
                    trace_id=make_trace_id(),
                )
            except ValidationError as error:
                form.add_error(None, error)
            else:
                return self.finish(account, pending, codes)
        return self._show(account, form)

    def _show(self, account: Account, form: PasskeyForm) -> HttpResponse:
        try:
            ceremony = load_passkeys().begin_registration(account=account, site=get_site(self.request))
        except ValidationError as error:
            messages.error(self.request, error.messages[0])
            return redirect("admin:second_factors")
        self.request.session[CEREMONY] = ceremony.state
        return self.render(PASSKEY_TEMPLATE, title="Passkey", layout=PUBLIC_LAYOUT, form=form, options=ceremony.options)


class FactorsView(SecretView):
    """One's own factors: what there is, and taking it away."""

    def get(self, request: HttpRequest) -> HttpResponse:
        account = get_actor(request)
        return self.render(
            LIST_TEMPLATE,
            title="Second factor",
            account=account,
            app=selectors.get_authenticator_app(account=account),
            passkeys=selectors.list_passkeys(account=account),
            codes_left=selectors.count_recovery_codes(account=account),
            has_webauthn=settings.MCP.webauthn,
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        if not is_fresh(request):
            return ask_again(reverse("admin:second_factors"))
        account, act = get_actor(request), request.POST.get("act", "")
        common: Any = {"account": account, "principal": get_account_principal(account=account)}
        common["trace_id"] = make_trace_id()
        if act == "make-codes":
            return self._make_codes(common)
        if act == "remove-app":
            return self._end(account, is_done=services.remove_app(**common))
        if act == "remove-passkey":
            passkey_id = parse_id(request.POST.get("passkey", ""))
            return self._end(account, is_done=services.remove_passkey(passkey_id=passkey_id, **common))
        return redirect("admin:second_factors")

    def _make_codes(self, common: Any) -> HttpResponse:
        next_url = reverse("admin:second_factors")
        try:
            codes = services.make_recovery_codes(**common)
        except ValidationError as error:
            messages.error(self.request, error.messages[0])
            return redirect(next_url)
        return self.render(CODES_TEMPLATE, title="Recovery codes", layout=PUBLIC_LAYOUT, codes=codes, next_url=next_url)

    def _end(self, account: Account, *, is_done: bool) -> HttpResponse:
        if is_done and account.needs_second_factor and not account.has_second_factor:
            logout(self.request)
            messages.info(self.request, "A second factor is required here: sign in again to set up another.")
            return redirect("admin:login")
        update_session_auth_hash(self.request, account)
        if is_done:
            messages.success(self.request, "It was taken away.")
        return redirect("admin:second_factors")


def get_site(request: HttpRequest) -> Any:
    """Where the browser is, for its passkeys."""
    return load_passkeys().Site(origin=f"{request.scheme}://{request.get_host().lower()}", name=settings.SERVER_NAME)


def load_passkeys() -> Any:
    """``services.passkeys``, at its first use."""
    from security.services import passkeys  # noqa: PLC0415  # fido2 takes a seventh of a second to import

    return passkeys


def draw_code(uri: str) -> str:
    """The picture that an app's camera reads, as a ``data:`` address of an image."""
    import segno  # noqa: PLC0415  # as slow, and as seldom

    return str(segno.make(uri, error="m", micro=False).svg_data_uri(scale=5, border=3))


def get_app_id(request: HttpRequest) -> uuid.UUID:
    """Which app this browser is setting up; of none the nil id."""
    return parse_id(request.session.get(ENROLMENT, ""))


def parse_id(text: str) -> uuid.UUID:
    """The id; the nil id, which nothing has, where it is none."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return NIL


def list_urls() -> list[URLPattern]:
    """Beside the site's own."""
    return [
        path("sign-on/", begin_sign_on, name="sign_on"),
        path("sign-on/callback/", finish_sign_on, name="sign_on_callback"),
        path("second-factor/", admin.site.admin_view(FactorsView.as_view()), name="second_factors"),
        path("second-factor/sign-in/", SignInView.as_view(), name="second_factor"),
        path("second-factor/begin/", BeginView.as_view(), name="second_factor_begin"),
        path("second-factor/app/", AppView.as_view(), name="second_factor_app"),
        path("second-factor/passkey/", PasskeyView.as_view(), name="second_factor_passkey"),
    ]


admin.site.extra_urls = list_urls  # type: ignore[attr-defined]  # unfold's way to more addresses

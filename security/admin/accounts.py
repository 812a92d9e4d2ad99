"""Accounts: persons and services, and a person's password."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString, mark_safe
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, BaseDialogForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from protocol.admin import get_row, lead_to, tell_refusal
from protocol.errors import MCPError
from protocol.link import make_trace_id
from security import selectors, services
from security.admin.permissions import SuperuserWrites, get_actor, get_principal
from security.domain.openid import MAX_SUBJECT_LENGTH
from security.models import Account


class AccountCreationForm(UserCreationForm):
    """A person with or without a password, or a service."""

    class Meta:
        model = Account
        fields = ("username", "kind", "display_name", "email", "roles")

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data.get("kind") == Account.Kind.SERVICE:
            if self.cleaned_data.get("password1"):
                self.add_error("password1", "A service account has keys, no password.")
            self.cleaned_data["usable_password"] = "false"  # noqa: S105  # the field's value for none
        return cast("dict[str, Any]", super().clean())


class AccountChangeForm(UserChangeForm):
    class Meta:
        model = Account
        fields = "__all__"


class AccountPasswordForm(AdminPasswordChangeForm):
    """Another's password, set or taken away."""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if self.user.is_service:
            raise ValidationError("A service account has keys, no password.", code="service_has_no_password")
        return cast("dict[str, Any]", cleaned)

    def save(self, commit: bool = True) -> Account:
        if self.cleaned_data["set_usable_password"]:
            services.set_password(account=self.user, password=self.cleaned_data["password1"])
        else:
            services.remove_password(account=self.user)
        return cast("Account", self.user)


class SubjectForm(BaseDialogForm):
    """Who an account is at the provider of OpenID Connect."""

    subject = forms.CharField(
        max_length=MAX_SUBJECT_LENGTH,
        widget=UnfoldAdminTextInputWidget,
        help_text="The claim sub, exactly as the provider writes it.",
    )


@admin.register(Account)
class AccountAdmin(SuperuserWrites, DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    form = AccountChangeForm
    add_form = AccountCreationForm
    change_password_form = AccountPasswordForm
    list_display = [
        "username",
        "display_name",
        "kind",
        "role_names",
        "is_active",
        "is_staff",
        "second_factor",
        "last_login",
    ]
    list_filter = ["kind", "is_active", "is_staff", "roles"]
    search_fields = ["username", "display_name", "email"]
    ordering = ["username"]
    autocomplete_fields = ["roles"]
    filter_horizontal = ["groups", "user_permissions"]
    readonly_fields = ["id", "kind", "second_factor", "signs_on_as", "last_login", "created_at", "limits_left"]
    actions_detail = ["sign_out", "reset_second_factor", "link_subject", "unlink_subject"]
    fieldsets = [
        (
            None,
            {"fields": ["username", "password", "kind", "display_name", "email", "is_active"]},
        ),
        ("Signing in", {"fields": ["second_factor", "signs_on_as"]}),
        ("As an agent or operator", {"fields": ["roles", "security_level_max"]}),
        ("In the console", {"fields": ["is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Limits", {"fields": ["limits_left"]}),
        ("Record", {"fields": ["id", "created_at", "last_login"]}),
    ]
    service_fieldsets = [
        (None, {"fields": ["username", "kind", "display_name", "email", "is_active"]}),
        ("As an agent", {"fields": ["roles", "security_level_max"]}),
        ("Limits", {"fields": ["limits_left"]}),
        ("Record", {"fields": ["id", "created_at"]}),
    ]
    add_fieldsets = [
        (
            None,
            {
                "classes": ["wide"],
                "fields": [
                    "username",
                    "kind",
                    "display_name",
                    "email",
                    "roles",
                    "usable_password",
                    "password1",
                    "password2",
                ],
            },
        )
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        return cast("QuerySet[Account]", super().get_queryset(request).prefetch_related("roles"))

    def get_fieldsets(self, request: HttpRequest, obj: Account | None = None) -> Any:
        return self.service_fieldsets if obj and obj.is_service else super().get_fieldsets(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Account | None = None) -> list[str]:
        return self.readonly_fields if obj else []

    def has_delete_permission(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> bool:
        """Never: records name accounts. They are made inactive."""
        return False

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        services.save_account(account=obj)

    def has_sign_out_permission(self, request: HttpRequest, object_id: str) -> bool:
        """By the policy, which the service asks too."""
        account = self.get_object(request, object_id)
        return account is not None and selectors.may_revoke_all_sessions(
            principal=get_principal(request), account_id=account.pk
        )

    @action(
        description="Sign out everywhere",
        icon="logout",
        variant=ActionVariant.DANGER,
        permissions=["view", "sign_out"],
        dialog={
            "title": "Sign this account out everywhere?",
            "description": "Its connections close, and its tokens and console sign-ins count no more. Its API keys do.",
            "form_class": None,
            "form_submit_text": "Sign out",
        },
    )
    def sign_out(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        account: Account = get_row(self, request, object_id)
        try:
            ended = services.revoke_all_sessions(
                username=account.username, principal=get_principal(request), trace_id=make_trace_id()
            )
        except MCPError as error:
            self.message_user(request, tell_refusal(error), messages.ERROR)
            return lead_to(self, account.pk)
        self.log_change(request, account, "Signed out everywhere.")
        said = f"{ended.sessions} connections and {ended.token_families} sign-ins by token have ended."
        self.message_user(request, said, messages.SUCCESS)
        return lead_to(self, account.pk)

    @display(description="left")
    def limits_left(self, obj: Account) -> SafeString:
        rows = [
            (
                standing.rule.name,
                "unknown" if standing.left is None else f"{standing.left:,}",
                f"{standing.rule.amount:,} {standing.rule.counted} a {standing.rule.period}",
            )
            for standing in services.list_standings(account=obj)
        ]
        return format_html_join(mark_safe("<br>"), "{}: {} of {}", rows)

    @display(description="roles")
    def role_names(self, obj: Account) -> str:
        return ", ".join(role.name for role in obj.roles.all()) or "none"

    @display(description="second factor", boolean=True)
    def second_factor(self, obj: Account) -> bool:
        return obj.has_second_factor

    def has_reset_permission(self, request: HttpRequest, object_id: str) -> bool:
        return get_actor(request).is_superuser

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        account = self.get_object(request, object_id)
        offered: list[Any] = super().get_actions_detail(request, object_id)
        missing = set() if account is None else self._list_missing(account)
        return [each for each in offered if not any(each.action_name.endswith(name) for name in missing)]

    def _list_missing(self, account: Account) -> set[str]:
        """Actions that there is nothing to act on for."""
        link = selectors.get_provider_link(account=account, issuer=settings.MCP.oidc_issuer)
        can_link = bool(settings.MCP.oidc_issuer) and not account.is_service and link is None
        there = {
            "reset_second_factor": account.has_second_factor,
            # The one's name ends in the other's.
            "_link_subject": can_link,
            "unlink_subject": link is not None,
        }
        return {name for name, is_there in there.items() if not is_there}

    @action(
        description="Reset second factor",
        icon="phonelink_erase",
        variant=ActionVariant.DANGER,
        permissions=["reset"],
        dialog={
            "title": "Reset this account's second factor?",
            "description": "Its authenticator app, passkeys and recovery codes no longer count, and sign-ins by its"
            " password end. Be sure of who asks for it.",
            "form_class": None,
            "form_submit_text": "Reset the second factor",
        },
    )
    def reset_second_factor(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        account: Account = get_row(self, request, object_id)
        if services.reset_second_factor(account=account, principal=get_principal(request), trace_id=make_trace_id()):
            self.log_change(request, account, "Reset the second factor.")
            self.message_user(request, "The account has no second factor any more.", messages.SUCCESS)
        return lead_to(self, account.pk)

    @display(description="signs on as")
    def signs_on_as(self, obj: Account) -> str:
        link = selectors.get_provider_link(account=obj, issuer=settings.MCP.oidc_issuer)
        return f"{link.subject} of {link.issuer}" if link else "not linked"

    @action(
        description="Link with the provider",
        icon="link",
        permissions=["reset"],
        dialog={
            "title": "Link this account with the OpenID Connect provider?",
            "description": "Whoever the provider names so signs on to the console as this account.",
            "form_class": SubjectForm,
            "form_submit_text": "Link",
        },
    )
    def link_subject(self, request: HttpRequest, form: SubjectForm, object_id: str) -> HttpResponse:
        account: Account = get_row(self, request, object_id)
        try:
            services.link_account(
                account=account,
                issuer=settings.MCP.oidc_issuer,
                subject=form.cleaned_data["subject"],
                principal=get_principal(request),
                trace_id=make_trace_id(),
            )
        except ValidationError as error:
            self.message_user(request, error.messages[0], messages.ERROR)
        else:
            self.log_change(request, account, "Linked with the provider.")
            self.message_user(request, "The account is linked.", messages.SUCCESS)
        return lead_to(self, account.pk)

    @action(
        description="Unlink from the provider",
        icon="link_off",
        variant=ActionVariant.DANGER,
        permissions=["reset"],
        dialog={
            "title": "Unlink this account from the OpenID Connect provider?",
            "description": "Console sign-ins by the provider end. The next sign-on by whomever the provider names with"
            " this account's claim links it again; empty its e-mail, or make it inactive, where it must not.",
            "form_class": None,
            "form_submit_text": "Unlink",
        },
    )
    def unlink_subject(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        account: Account = get_row(self, request, object_id)
        if services.unlink_account(
            account=account,
            issuer=settings.MCP.oidc_issuer,
            principal=get_principal(request),
            trace_id=make_trace_id(),
        ):
            self.log_change(request, account, "Unlinked from the provider.")
            self.message_user(request, "The account is no longer linked.", messages.SUCCESS)
        return lead_to(self, account.pk)

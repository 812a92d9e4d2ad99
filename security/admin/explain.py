"""The page "who may do what, and why": one account's decision, or everybody who may. The command ``explain`` says the
same."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from protocol.domain.messages import SecurityLevel
from security import selectors
from security.admin.permissions import get_actor
from security.models import Account, Role
from security.selectors import Explanation, Question

TEMPLATE = "admin/security/role/explain.html"


class ExplainForm(forms.Form):
    account = forms.CharField(
        required=False,
        max_length=150,
        widget=UnfoldAdminTextInputWidget,
        help_text="Its name; empty: everybody who may.",
    )
    key = forms.CharField(
        label="API key",
        required=False,
        max_length=50,
        widget=UnfoldAdminTextInputWidget,
        help_text="The beginning of one of the account's keys, to narrow it to the key's scopes and networks.",
    )
    action = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget, help_text="For example tools.execute.")
    resource = forms.CharField(
        max_length=300, widget=UnfoldAdminTextInputWidget, help_text="Kind and name: tool:text.count_words."
    )
    own = forms.BooleanField(
        label="The account's own",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="As with @own in a grant.",
    )
    labels = forms.CharField(
        required=False,
        max_length=300,
        widget=UnfoldAdminTextInputWidget,
        help_text="That the resource bears besides its own, separated by spaces.",
    )
    remote_address = forms.CharField(
        label="From the address",
        required=False,
        max_length=50,
        widget=UnfoldAdminTextInputWidget,
        help_text="Empty: address rules and the key's networks are left out, and no grant that asks for a network "
        "allows anything.",
    )
    level = forms.ChoiceField(
        label="Security level",
        required=False,
        initial=SecurityLevel.STANDARD.value,
        choices=[(level.value, level.value) for level in SecurityLevel],
        widget=UnfoldAdminSelectWidget,
    )

    explanation: Explanation | None = None
    allowed: list[Explanation] | None = None

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if not self.errors:
            try:
                self._answer(
                    selectors.make_question(
                        action=cleaned["action"],
                        resource=cleaned["resource"],
                        labels=frozenset(cleaned["labels"].split()),
                        is_own=cleaned["own"],
                        remote_address=cleaned["remote_address"],
                        security_level=SecurityLevel(cleaned["level"] or SecurityLevel.STANDARD.value),
                    )
                )
            except selectors.QuestionInvalid as error:
                self.add_error(None, str(error))
            except Account.DoesNotExist:
                self.add_error("account", "There is no such account.")
            except selectors.KeyNotFound:
                self.add_error("key", "The account has no key, or several, that begin so.")
        return cleaned

    def _answer(self, question: Question) -> None:
        username, prefix = self.cleaned_data["account"], self.cleaned_data["key"]
        if username:
            self.explanation = selectors.explain_access(username=username, key_prefix=prefix or None, question=question)
        else:
            self.allowed = selectors.list_allowed(question=question)


def show_explanation(request: HttpRequest) -> HttpResponse:
    """The page, with the answer once something is asked.

    Raises:
        PermissionDenied: it tells of accounts and roles, which this account may not look at.
    """
    if not get_actor(request).has_perms(["security.view_role", "security.view_account"]):
        raise PermissionDenied
    form = ExplainForm(request.GET or None)
    form.is_valid()
    context = {
        **admin.site.each_context(request),
        "opts": Role._meta,
        "title": "Who may do what, and why",
        "form": form,
        "explanation": form.explanation,
        "allowed": form.allowed,
    }
    return TemplateResponse(request, TEMPLATE, context)

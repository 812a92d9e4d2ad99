"""Every form and action of the console, found by its address: what changes anything is on record, with who did it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, reverse
from django.utils import timezone
from uuid_utils.compat import uuid7

from protocol.models import Session
from security import services as security
from security.models import (
    Account,
    AddressRule,
    AuditEvent,
    EncryptionKey,
    IssuedToken,
    Limit,
    PortLease,
    PortQuarantine,
)
from security.selectors import get_account_principal
from security.services import LeaseRequest
from tests.factories import create_person, create_role, create_service, issue_key, issue_tokens
from tests.keys import ensure_keys
from tests.runs import accept_run
from tests.second_factors import enrol
from tests.unrecorded import unrecorded
from tools import services
from tools.models import Execution, Tool

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"  # a test's
PUBLIC_KEY = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
"""RFC 8037's example."""
OTHER_PUBLIC_KEY = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"
ADDRESS = "192.0.2.77"
ADDRESS_OF_OPERATOR = "127.0.0.1"
KEPT_ELSEWHERE = {"security.auditevent", "security.auditseal", "security.audithead", "security.auditchain"} | {
    "security.unsealedevent",
    "security.revocationmark",
    "admin.logentry",
    "sessions.session",
}
"""The record itself, marks that follow a change, and Django's own log and browsers' sessions."""
INLINE = {"grants-TOTAL_FORMS": "0", "grants-INITIAL_FORMS": "0"}
FORMS: Mapping[str, Mapping[str, str]] = {
    "auth_group_add": {"name": "watchers"},
    "auth_group_change": {"name": "guards"},
    "auth_group_delete": {"post": "yes"},
    "auth_user_password_change": {
        "usable_password": "true",
        "password1": PASSWORD,
        "password2": PASSWORD,
        "set-password": "1",
    },
    "security_account_add": {
        "username": "anna",
        "kind": "person",
        "usable_password": "true",
        "password1": PASSWORD,
        "password2": PASSWORD,
    },
    "security_account_change": {"username": "another", "security_level_max": "standard", "kind": "service"},
    "security_account_sign_out": {},
    "security_account_reset_second_factor": {},
    "security_addressrule_add": {"effect": "deny", "network": ADDRESS, "is_enabled": "on"},
    "security_addressrule_change": {"effect": "deny", "network": ADDRESS},
    "security_addressrule_delete": {"post": "yes"},
    "security_apikey_add": {"name": "laptop", "expires_at_0": "", "expires_at_1": ""},
    "security_apikey_change": {"name": "desk"},
    "security_apikey_rotate_key": {"overlap_hours": "1"},
    "security_apikey_revoke_key": {},
    "security_commandkey_add": {"label": "laptop", "written_key": PUBLIC_KEY},
    "security_commandkey_revoke_key": {},
    "security_encryptionkey_rotate_key": {},
    "security_issuedtoken_revoke_sign_in": {},
    "security_limit_add": {
        "name": "least",
        "is_enabled": "on",
        "scope": "each_account",
        "counted": "commands",
        "pattern": "tools.*",
        "amount": "7",
        "period": "hour",
    },
    "security_limit_change": {
        "name": "fewer",
        "scope": "each_account",
        "counted": "commands",
        "pattern": "tools.*",
        "amount": "3",
        "period": "hour",
    },
    "security_limit_delete": {"post": "yes"},
    "security_portlease_drain": {},
    "security_portlease_release": {},
    "security_portquarantine_lift": {},
    "security_role_add": {"name": "readers", **INLINE},
    "security_role_change": {"name": "writers", **INLINE},
    "security_role_delete": {"post": "yes"},
    "protocol_session_close_connection": {},
    "tools_execution_cancel": {},
    "tools_execution_kill": {},
    "tools_execution_run_again": {},
    "tools_tool_run": {
        "version": "1.0.0",
        "way": "json",
        "key": "0198c5a17f3e7c449d553f2f6a1c8e10",
        "input": '{"text": "a b"}',
    },
    "tools_tool_mark": {"labels": "production", "minimum_level": ""},
    "tools_tool_disable": {"reason": "x"},
    "tools_tool_enable": {},
    "password_change": {"old_password": PASSWORD, "new_password1": PASSWORD + "r", "new_password2": PASSWORD + "r"},
}
"""What each form or action is sent that changes something."""
LOOKED_AT = {
    "security_role_explain",
    "tools_execution_watch",
    "password_change_done",
    "app_list",
    "autocomplete",
    "index",
    "jsi18n",
    "search",
    "view_on_site",
}
"""What changes nothing, whatever it is sent."""
TESTED_ELSEWHERE = {
    "login",
    "logout",
    "second_factor",
    "second_factors",
    "second_factor_begin",
    "second_factor_app",
    "second_factor_passkey",
    "sign_on",
    "sign_on_callback",
    "security_account_link_subject",
    "security_account_unlink_subject",
}
"""In ``test_changes``, ``test_second_factors`` and ``test_sign_on``: they take several steps, or a provider."""


def list_names() -> Iterator[str]:
    """All of the console but lists and histories."""
    for model_admin in admin.site._registry.values():
        yield from (
            p.name for p in model_admin.get_urls() if p.name and not p.name.endswith(("_changelist", "_history"))
        )
    yield from (p.name for p in admin.site.get_urls() if isinstance(p, URLPattern) and p.name)


@pytest.fixture
def rows(operator: Account) -> dict[str, Any]:
    """A row of each model, as each action wants it, by ``app_model``."""
    ensure_keys()
    services.load_tools()
    services.synchronise_tools()
    person = create_person()
    enrol(person)
    account = create_service(username="other")
    run = accept_run(account)
    tokens = issue_tokens()
    lease = lease_port(account)
    return {
        "auth_group": Group.objects.create(name="guests"),
        "auth_user": person,
        "security_account": person,
        "security_apikey": issue_key(account=account).api_key,
        "security_commandkey": security.register_command_key(
            account=operator, public_key=OTHER_PUBLIC_KEY, label="old"
        ),
        "security_encryptionkey": EncryptionKey.objects.filter(purpose="audit").get(),
        "security_issuedtoken": IssuedToken.objects.get(id=tokens.access_jti),
        "security_portlease": lease,
        "security_portquarantine": PortQuarantine.objects.create(
            host="h",
            port=lease.port,
            reason="still_held",
            created_at=timezone.now(),
            until=timezone.now() + timedelta(hours=1),
        ),
        "security_addressrule": AddressRule.objects.create(effect="deny", network="192.0.2.78/32"),
        "security_limit": Limit.objects.create(name="few", amount=7, period="hour"),
        "security_role": create_role(grants=[]),
        "protocol_session": Session.objects.create(account=account, credential_id=account.id, channel=""),
        "tools_execution": run,
        "tools_tool": run.tool,
    }


def lease_port(account: Account) -> PortLease:
    request = LeaseRequest(
        principal=get_account_principal(account=account),
        purpose="preview",
        port=None,
        ttl_ms=None,
        session_id=None,
        message_id="",
        idempotency_key=None,
        trace_id="",
    )
    return PortLease.objects.get(id=security.allocate_port(request=request).leased.lease_id)


def describe_database() -> dict[str, list[Any]]:
    return {
        model._meta.label_lower: sorted(map(repr, model._base_manager.values_list()))
        for model in apps.get_models()
        if model._meta.label_lower not in KEPT_ELSEWHERE and model._meta.app_label != "django_celery_beat"
    }


def test_every_form_and_action_is_in_one_of_the_tables() -> None:
    known = FORMS.keys() | LOOKED_AT | TESTED_ELSEWHERE
    assert FORMS.keys() - set(list_names()) == set(), "there is no such page"
    unknown = {name for name in list_names() if name not in known}
    assert {name for name in unknown if not name.endswith(("_add", "_change", "_delete"))} == set()


@pytest.mark.parametrize("name", sorted(FORMS))
def test_what_changes_is_on_record_with_who_did_it(
    name: str, console: Client, operator: Account, rows: dict[str, Any]
) -> None:
    if name == "tools_tool_enable":
        Tool.objects.update(state=Tool.State.DISABLED)
    if name == "tools_execution_run_again":
        Execution.objects.update(state="succeeded", finished_at=timezone.now())
    if name == "password_change":
        with unrecorded():
            operator.set_password(PASSWORD)
            operator.save()
            console.force_login(operator)
    sent = {"_form_submitted": "on", **FORMS[name]}
    if name.endswith("key_add"):
        sent["account"] = str(operator.pk)
    row = next(
        (row for prefix, row in rows.items() if name.startswith(f"{prefix}_") and not name.endswith("_add")), None
    )
    seen = set(AuditEvent.objects.values_list("id", flat=True))
    before = describe_database()

    response = console.post(
        reverse(f"admin:{name}", args=[row.pk] if row else []), sent, REMOTE_ADDR=ADDRESS_OF_OPERATOR
    )

    shown = response.context["adminform"].form.errors if response.context and "adminform" in response.context else ""
    assert describe_database() != before, (response.status_code, shown)
    events = list(AuditEvent.objects.exclude(id__in=seen))
    assert operator.id in {event.actor_id for event in events}
    told = [(event.action, event.resource_kind, event.resource_name, event.data_json) for event in events]
    assert len(told) == len(set(told)), "one act, one event"
    # That a run has ended is the server's own to say.
    assert {event.action for event in events if event.actor_id != operator.id} <= {"execution.ended"}


@pytest.mark.parametrize("name", sorted({name for name in list_names() if name not in FORMS.keys() | TESTED_ELSEWHERE}))
def test_nothing_else_changes_anything(name: str, console: Client, rows: dict[str, Any]) -> None:
    row = next((row for prefix, row in rows.items() if name.startswith(f"{prefix}_")), None)
    arguments: list[Any] = [] if row is None or name.endswith("_add") else [row.pk]
    try:
        address = reverse(f"admin:{name}", args=arguments)
    except NoReverseMatch:
        address = reverse(f"admin:{name}", args=[uuid7()]) if name.endswith(("_change", "_delete")) else "/admin/none/"
    before = describe_database()
    console.post(address, {"_form_submitted": "on", "post": "yes", "name": "taken over"})
    assert describe_database() == before

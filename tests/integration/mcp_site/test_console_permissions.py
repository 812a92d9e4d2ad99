"""Every page and action of the console, found by its address: closed to strangers and to staff without permissions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from uuid_utils.compat import uuid7

from protocol.models import Session
from security.models import AuditEvent
from tests.factories import create_person, create_role, create_service, issue_key
from tests.runs import accept_run
from tools import services

pytestmark = pytest.mark.django_db

OPEN = {"admin/login/", "admin/logout/"}
"""To anybody."""
OF_ALL_STAFF = {
    "admin/",
    "admin/password_change/",
    "admin/password_change/done/",
    "admin/jsi18n/",
    "admin/search/",
    "admin/second-factor/",
}
REFUSED = {302, 403, 404, 405}
NOWHERE = str(uuid7())
FORM = {"_form_submitted": "on", "name": "taken over", "is_superuser": "on", "reason": "x"}
"""What a page's form, or an action's dialog, might send."""


def list_patterns(patterns: Any, prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from list_patterns(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern) and route.startswith("admin/"):
            yield route


def list_routes() -> list[str]:
    found = [route for route in list_patterns(get_resolver().url_patterns) if not re.search(r"[\^(]", route)]
    assert len(found) > 50
    return sorted(set(found) - OPEN)


@pytest.fixture
def rows() -> dict[str, str]:
    """A row of each model that there is a page of, as far as one can be made here, by ``app/model``."""
    account = create_service()
    services.load_tools()
    services.synchronise_tools()
    made: list[Any] = [
        account,
        issue_key(account=account).api_key,
        create_role(grants=[]),
        Session.objects.create(account=account, credential_id=account.id, channel=""),
    ]
    run = accept_run(account)
    made += [run, run.tool]
    return {f"{row._meta.app_label}/{row._meta.model_name}": str(row.pk) for row in made}


def fill(route: str, rows: dict[str, str]) -> str:
    model = "/".join(route.split("/")[1:3])
    return "/" + re.sub(r"<[^>]+>", rows.get(model, NOWHERE), route)


def ask(client: Client, address: str) -> dict[str, int]:
    return {
        "GET": client.get(address).status_code,
        "POST": client.post(address, {"_selected_action": NOWHERE}).status_code,
    }


@pytest.mark.parametrize("route", list_routes())
def test_a_stranger_is_sent_to_the_sign_in(route: str) -> None:
    answer = Client().get(fill(route, {}))
    assert answer.status_code in REFUSED
    if answer.status_code == 302:
        # Or to a page that sends on to it.
        sending_on = (reverse("admin:second_factors"), f"{fill(route, {})}change/")
        assert "/login/" in answer.headers["location"] or answer.headers["location"] in sending_on
    assert Client().post(fill(route, {})).status_code in REFUSED


@pytest.mark.parametrize("route", sorted(set(list_routes()) - OF_ALL_STAFF))
def test_staff_without_permissions_gets_nowhere(route: str, client: Client, rows: dict[str, str]) -> None:
    client.force_login(create_person(is_staff=True))
    before = count_rows()
    assert set(ask(client, fill(route, rows)).values()) <= REFUSED
    assert count_rows() == before


@pytest.mark.parametrize("route", [route for route in list_routes() if "object_id" in route and "history" not in route])
def test_staff_that_may_look_changes_nothing(route: str, client: Client, rows: dict[str, str]) -> None:
    looker = create_person(is_staff=True)
    looker.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(looker)
    before = describe_rows(rows)
    # Whether by a form, an action or a dialog; what shows itself in answer to a POST does no harm.
    client.post(fill(route, rows), FORM)
    assert describe_rows(rows) == before


@pytest.mark.parametrize(
    "route",
    [
        "admin/security/apikey/<path:object_id>/revoke_key/",
        "admin/protocol/session/<path:object_id>/close_connection/",
        "admin/tools/tool/<path:object_id>/disable/",
    ],
)
def test_the_same_of_an_operator_changes_something(route: str, console: Client, rows: dict[str, str]) -> None:
    before = describe_rows(rows)
    console.post(fill(route, rows), FORM)
    assert describe_rows(rows) != before


def count_rows() -> dict[str, int]:
    return {model._meta.label: model._default_manager.count() for model in list_models()}


def list_models() -> list[Any]:
    # A refusal is on record: that is its one trace.
    return [
        model
        for model in admin.site._registry
        if model is not AuditEvent and model._meta.app_label != "django_celery_beat"
    ]


def describe_rows(rows: dict[str, str]) -> list[Any]:
    return [
        list(apps.get_model(name.replace("/", "."))._default_manager.filter(pk=key).values())
        for name, key in sorted(rows.items())
    ]

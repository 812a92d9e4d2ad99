"""What every answer has beside its content, and what is answered where something failed."""

from __future__ import annotations

import importlib
import json
import time
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path, reverse
from django.utils import timezone

from mcp_site import tasks, urls
from mcp_site.console.sessions import SEEN_AT, SIGNED_IN_AT, SessionStore, hash_session_key
from security.domain.lockout import PAIR_ALLOWANCE
from security.models import AuditEvent
from tests.factories import PASSWORD, create_operator

pytestmark = pytest.mark.django_db

SECRET = "a-secret-of-the-failure"


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError(SECRET)


class FailingUrls:
    """The site's URLs with two more, at which the view fails."""

    urlpatterns = [path("admin/fails/", fail), path("api/fails/", fail), *urls.urlpatterns]
    handler400, handler403 = urls.handler400, urls.handler403
    handler404, handler500 = urls.handler404, urls.handler500


@pytest.fixture
def stranger() -> Client:
    """A browser to which failures are answered, not raised."""
    return Client(raise_request_exception=False)


def parse_policy(response: Any) -> dict[str, set[str]]:
    directives = (part.split() for part in response.headers["Content-Security-Policy"].split(";"))
    return {name: set(values) for name, *values in directives}


@pytest.mark.parametrize(
    "address", ["/", "/admin/", "/admin/login/", "/api/v1/", "/api/docs/", "/api/nothing/", "/healthz", "/nothing/"]
)
def test_every_answer_says_what_a_browser_may_do_with_it(stranger: Client, address: str) -> None:
    response = stranger.get(address)
    policy = parse_policy(response)
    for name in ("default-src", "frame-ancestors", "object-src", "base-uri"):
        assert policy[name] == {"'none'"}
    assert policy["form-action"] <= {"'self'", "'none'"}
    assert policy.get("script-src", set()) <= {"'self'", "'unsafe-eval'"}
    assert ("'unsafe-eval'" in policy.get("script-src", ())) is not address.startswith(("/api/", "/healthz"))
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert "camera=()" in response.headers["Permissions-Policy"]
    assert "no-store" in response.headers["Cache-Control"]
    assert not {"Server", "X-Powered-By"} & set(response.headers)


def test_what_is_in_no_page_is_for_no_page() -> None:
    response = Client().get("/static/mcp/icon.svg")
    assert parse_policy(response)["default-src"] == {"'none'"}
    assert "script-src" not in parse_policy(response)
    assert "no-store" not in response.headers["Cache-Control"]


def test_swagger_uis_script_is_a_file(client: Client) -> None:
    page = client.get("/api/docs/").content.decode()
    assert page.count("<script") == page.count("<script src=") == 3
    script = client.get("/api/docs/?script=")
    assert script.headers["Content-Type"].startswith("application/javascript")
    assert "SwaggerUIBundle(" in script.content.decode()


def test_cookies_are_for_this_site_and_no_script(client: Client) -> None:
    create_operator(username="boss", password=PASSWORD)
    response = client.post(reverse("admin:login"), {"username": "boss", "password": PASSWORD})
    assert response.status_code == 302
    assert {django_settings.SESSION_COOKIE_NAME, django_settings.CSRF_COOKIE_NAME} == set(response.cookies)
    for cookie in response.cookies.values():
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert cookie["path"] == "/"
        assert not cookie["domain"]


# Error pages


@pytest.fixture
def _failing_urls(settings: Any) -> None:
    settings.ROOT_URLCONF = FailingUrls


@pytest.mark.usefixtures("_failing_urls")
def test_a_failure_is_a_page_with_an_id_that_the_log_has(stranger: Client, caplog: pytest.LogCaptureFixture) -> None:
    response = stranger.get("/admin/fails/")
    assert response.status_code == 500
    page = response.content.decode()
    assert SECRET not in page
    assert "RuntimeError" not in page
    assert "Traceback" not in page
    trace_id = page.partition('select-all">')[2].partition("<")[0].strip()
    assert len(trace_id) == 32
    assert trace_id in caplog.text


@pytest.mark.usefixtures("_failing_urls")
def test_a_failure_under_the_api_is_a_problem(stranger: Client, caplog: pytest.LogCaptureFixture) -> None:
    response = stranger.get("/api/fails/")
    assert (response.status_code, response.headers["Content-Type"]) == (500, "application/problem+json")
    problem = json.loads(response.content)
    assert problem["code"] == "system.internal"
    assert SECRET not in response.content.decode()
    assert problem["trace_id"] in caplog.text


def test_what_is_not_there_is_a_page(stranger: Client) -> None:
    for address in ("/nothing/", "/nothing"):
        response = stranger.get(address)
        assert response.status_code == 404
        assert 'id="error"' in response.content.decode()


def test_a_wrong_host_is_a_page(stranger: Client) -> None:
    response = stranger.get("/admin/login/", headers={"host": "evil.example"})
    assert response.status_code == 400
    assert 'id="error"' in response.content.decode()
    assert "evil.example" not in response.content.decode()
    problem = stranger.get("/api/v1/", headers={"host": "evil.example"})
    assert problem.status_code == 400
    assert json.loads(problem.content)["code"].startswith("protocol.")


def test_a_post_without_its_token_is_a_page(settings: Any) -> None:
    response = Client(enforce_csrf_checks=True).post(reverse("admin:login"), {"username": "a", "password": "b"})
    assert response.status_code == 403
    assert 'id="error"' in response.content.decode()
    assert "CSRF" not in response.content.decode()


def test_what_is_too_large_is_a_page(stranger: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    response = stranger.post(reverse("admin:login"), {"username": "a" * 200, "password": "b"})
    assert response.status_code == 413
    assert 'id="error"' in response.content.decode()


# How long somebody stays signed in


def age(client: Client, **seconds: int) -> None:
    """As if the session's times lay so much further back."""
    session = client.session
    for key, value in seconds.items():
        session[key] -= value
    session.save()


def is_signed_in(client: Client, **headers: str) -> bool:
    return client.get(reverse("admin:index"), headers=headers).status_code == 200


def test_signing_in_gives_the_session_a_new_key(client: Client) -> None:
    create_operator(username="boss", password=PASSWORD)
    session = client.session
    session["kept"] = 1
    session.save()
    before = session.session_key
    client.post(reverse("admin:login"), {"username": "boss", "password": PASSWORD})
    assert is_signed_in(client)
    assert client.session.session_key != before
    store = importlib.import_module(django_settings.SESSION_ENGINE).SessionStore
    assert not store(before).load()


def test_who_does_nothing_is_signed_out(console: Client) -> None:
    idle = django_settings.MCP.console_idle_minutes * 60
    age(console, seen_at=idle - 30)
    # A page that reads itself again is nobody.
    assert is_signed_in(console, **{"HX-Request": "true"})
    assert time.time() - console.session[SEEN_AT] > idle - 60
    assert is_signed_in(console)
    assert time.time() - console.session[SEEN_AT] < 60
    age(console, seen_at=idle + 1)
    assert not is_signed_in(console)
    assert not is_signed_in(console)


def test_nobody_stays_signed_in_for_ever(console: Client) -> None:
    assert console.session[SIGNED_IN_AT] > 0
    age(console, signed_in_at=django_settings.MCP.console_session_hours * 3600 + 1)
    assert not is_signed_in(console)


def test_the_database_has_no_key_that_a_browser_shows(console: Client) -> None:
    key = console.session.session_key
    assert key
    assert is_signed_in(console)
    stored = list(Session.objects.values_list("session_key", flat=True))
    assert stored == [hash_session_key(key)]
    # Who has read the database is nobody.
    thief = Client()
    thief.cookies[django_settings.SESSION_COOKIE_NAME] = stored[0]
    assert not is_signed_in(thief)
    console.post(reverse("admin:logout"))
    assert not Session.objects.filter(session_key=hash_session_key(key)).exists()


def test_who_does_nothing_is_signed_out_of_asynchronous_pages_too(console: Client) -> None:
    key = console.session.session_key
    assert key
    assert async_to_sync(SessionStore(key).aget)(SEEN_AT)
    age(console, seen_at=django_settings.MCP.console_idle_minutes * 60 + 1)
    assert async_to_sync(SessionStore(key).aget)(SEEN_AT) is None
    assert not async_to_sync(SessionStore().aexists)(key)


def test_sessions_that_ended_by_their_age_are_forgotten(console: Client) -> None:
    Client().force_login(create_operator(username="other"))
    kept = hash_session_key(console.session.session_key or "")
    Session.objects.exclude(session_key=kept).update(expire_date=timezone.now() - timedelta(seconds=1))
    tasks.purge_console_sessions()
    assert [row.session_key for row in Session.objects.all()] == [kept]
    assert is_signed_in(console)


def test_forgetting_them_is_in_the_schedule() -> None:
    assert tasks.purge_console_sessions.name in {
        entry["task"] for entry in django_settings.CELERY_BEAT_SCHEDULE.values()
    }


# Changing one's own password


def change_password(client: Client, *, old: str, new: str = "another long battery") -> Any:
    form = {"old_password": old, "new_password1": new, "new_password2": new}
    return client.post(reverse("admin:password_change"), form)


def test_the_old_password_is_counted_as_at_a_sign_in(client: Client) -> None:
    boss = create_operator(username="boss", password=PASSWORD)
    client.force_login(boss)
    for _ in range(PAIR_ALLOWANCE.attempts):
        assert change_password(client, old="wrong").context["form"].has_error("old_password", "password_incorrect")
    # Neither here nor at any other door, even with the right one.
    assert change_password(client, old=PASSWORD).context["form"].has_error("old_password", "locked_out")
    page = Client().post(reverse("admin:login"), {"username": "boss", "password": PASSWORD})
    assert page.context["form"].non_field_errors().as_data()[0].code == "locked_out"
    boss.refresh_from_db()
    assert boss.check_password(PASSWORD)
    assert AuditEvent.objects.filter(action="access.deny", outcome="security.authentication_failed").exists()


def test_the_right_one_changes_it_and_counts_nothing(client: Client) -> None:
    boss = create_operator(username="boss", password=PASSWORD)
    client.force_login(boss)
    for _ in range(PAIR_ALLOWANCE.attempts + 1):
        assert change_password(client, old=PASSWORD, new="short").status_code == 200
    assert change_password(client, old=PASSWORD).status_code == 302
    boss.refresh_from_db()
    assert boss.check_password("another long battery")
    # Who changed it stays signed in.
    assert is_signed_in(client)

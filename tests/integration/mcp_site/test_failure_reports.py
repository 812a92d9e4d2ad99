"""Django's page of a failure, as `MCP_DEBUG` shows it, has no secret in it: no setting, no header, no variable."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from mcp_site import urls
from mcp_site.known_secrets import make_redactor
from mcp_site.web.failure_reports import ReportFilter

pytestmark = pytest.mark.django_db

PASSWORD = "planted-in-a-variable"
DATABASE_PASSWORD = "planted-in-a-url"
KEY = f"mcp_{secrets.token_urlsafe(32)}"


def fail(request: HttpRequest) -> HttpResponse:
    form = request.POST
    body = {"password": PASSWORD, "deeper": {"refresh_token": PASSWORD}, "harmless": "harmless-value"}
    raise RuntimeError(f"no answer from redis://:{DATABASE_PASSWORD}@h/0 to {KEY} of {bool(form)} {bool(body)}")


class FailingUrls:
    """The site's URLs with one at which the view fails."""

    urlpatterns = [path("fails/", fail), *urls.urlpatterns]


@pytest.fixture
def _debug(settings: Any) -> None:
    settings.DEBUG = True
    settings.ROOT_URLCONF = FailingUrls
    # As they would be with external services.
    url = f"redis://:{DATABASE_PASSWORD}@cache.example/0"
    settings.REDIS_URL = settings.CELERY_BROKER_URL = url
    settings.CHANNEL_LAYERS = {"default": {"CONFIG": {"hosts": [url]}}}
    settings.REDACTOR = make_redactor([url, settings.SECRET_KEY])


@pytest.mark.usefixtures("_debug")
@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
def test_it_shows_what_failed_and_no_secret(accept: str) -> None:
    client = Client(raise_request_exception=False)
    client.cookies["mcp_session"] = "planted-cookie"
    client.cookies["mcp_csrf"] = "planted-csrf"
    response = client.post(
        f"/fails/?token=planted-query&key={KEY}",
        {"username": "anna", "password": "planted-post", "code": "planted-code"},
        headers={"Authorization": "Bearer planted-header", "X-Api-Key": KEY, "Accept": accept},
    )
    assert response.status_code == 500
    page = response.content.decode()
    assert "RuntimeError" in page
    assert "redis://:***@h/0" in page
    if accept == "text/html":
        assert "harmless-value" in page
    assert "planted" not in page.replace("test_failure_reports", "")
    for secret in (KEY, django_settings.SECRET_KEY, DATABASE_PASSWORD, PASSWORD):
        assert secret not in page


@pytest.mark.usefixtures("_debug")
def test_settings_say_where_services_are_but_not_the_passwords() -> None:
    shown = ReportFilter().get_safe_settings()
    assert shown["REDIS_URL"] == "redis://:***@cache.example/0"
    assert shown["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"] == ["redis://:***@cache.example/0"]
    assert DATABASE_PASSWORD not in repr(shown)
    assert django_settings.SECRET_KEY not in repr(shown)

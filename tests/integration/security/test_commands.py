"""``manage.py issue_key`` and ``manage.py reset_password``."""

from __future__ import annotations

import io
import re
from datetime import timedelta

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.utils import timezone

from protocol.domain.messages import ApiKeyCredentials
from protocol.ports import get_authenticator
from security import services
from security.models import ApiKey
from tests.factories import create_person, create_service

pytestmark = pytest.mark.django_db

KEY = re.compile(r"mcp_[A-Za-z0-9_-]{43}")


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


def test_a_key_is_issued_and_works() -> None:
    create_service(username="bot")
    output = run("issue_key", "bot")
    (secret,) = KEY.findall(output)
    assert "not be shown again" in output
    principal = get_authenticator().authenticate(credentials=ApiKeyCredentials(key=secret), remote_address=None)
    assert principal.name == "bot"


def test_a_quiet_key_is_the_only_output() -> None:
    create_service(username="bot")
    assert KEY.fullmatch(run("issue_key", "bot", "--quiet").removesuffix("\n"))


def test_a_keys_name_scopes_and_end_are_given() -> None:
    create_service(username="bot")
    run(
        "issue_key", "bot", "--name", "ci", "--scope", "tools.view", "--scope", "executions.*", "--expires-in-days", "7"
    )
    api_key = ApiKey.objects.get()
    assert (api_key.name, api_key.scopes) == ("ci", ["tools.view", "executions.*"])
    assert api_key.expires_at is not None
    assert abs(api_key.expires_at - timezone.now() - timedelta(days=7)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("issue_key", "nobody"),
        ("issue_key", "bot", "--scope", "Tools"),
        ("issue_key", "bot", "--name", ""),
        ("issue_key", "bot", "--expires-in-days", "0"),
        ("issue_key", "bot", "--expires-in-days", "soon"),
        ("issue_key", "bot", "--expires-in-days", "9" * 30),
        ("issue_key", "gone"),
        ("issue_key",),
        ("reset_password", "nobody"),
        ("reset_password", "bot"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: tuple[str, ...]) -> None:
    create_service(username="bot")
    gone = create_service(username="gone")
    gone.is_active = False
    services.save_account(account=gone)
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert not ApiKey.objects.exists()


def test_a_password_is_reset_and_works() -> None:
    anna = create_person(username="anna")
    output = run("reset_password", "anna")
    (password,) = re.findall(r"^    (\S+)$", output, re.MULTILINE)
    assert authenticate(username="anna", password=password) == anna


def test_a_password_is_taken_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    anna = create_person(username="anna")
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery staple\n"))
    output = run("reset_password", "anna", "--stdin")
    assert "correct horse" not in output
    assert authenticate(username="anna", password="correct horse battery staple") == anna


@pytest.mark.parametrize("text", ["", "\n", "12345678\n"], ids=["nothing", "empty", "weak"])
def test_a_password_that_does_not_serve_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    anna = create_person(username="anna")
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(CommandError):
        run("reset_password", "anna", "--stdin")
    anna.refresh_from_db()
    assert not anna.has_usable_password()

"""``manage.py issue_key``, ``manage.py reset_password`` and ``manage.py explain``."""

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
from security.models import Account, ApiKey
from tests.factories import allow, create_person, create_role, create_service, deny, issue_key

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


# Explaining


def explain(*arguments: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    output = io.StringIO()
    try:
        call_command("explain", *arguments, stdout=output)
    except CommandError as error:
        return error.returncode, str(error)
    except SystemExit as ended:
        return int(ended.code or 0), output.getvalue()
    raise AssertionError("it ended without an exit code")


@pytest.fixture
def bot() -> Account:
    create_role(name="reader", grants=[allow("tools.view", "tool:*"), deny("tools.*", "tool:files.*")])
    create_role(name="owner", grants=[allow("executions.*", "execution:*@own")])
    return create_service(username="bot", roles=["agent", "owner", "reader"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tools.execute", "tool:text.search"], 0, "bot may tools.execute on tool:text.search: the role agent allows"),
        (["tools.execute", "tool:files.read"], 1, "the role reader denies tools.* on tool:files.*"),
        (["contexts.view", "context:a"], 1, "no grant of its roles (agent, owner, reader) allows that"),
        (["executions.purge", "execution:a", "--own"], 0, "the role owner allows executions.* on execution:*@own"),
        (["executions.purge", "execution:a"], 1, "no grant"),
    ],
)
def test_what_decides_is_told(bot: Account, arguments: list[str], code: int, said: str) -> None:
    ended, output = explain("BOT", *arguments)
    assert (ended, said in output) == (code, True), output


def test_a_keys_scopes_and_end_are_told(bot: Account) -> None:
    narrow = issue_key(account=bot, scopes=["tools.view"])
    asked = ["bot", "tools.execute", "tool:text.search", "--key"]
    code, output = explain(*asked, narrow.secret)
    assert code == 1
    assert f"the role agent allows tools.execute on tool:*, but the key {narrow.api_key.prefix} has" in output
    assert narrow.secret not in output
    wide = issue_key(account=bot)
    assert explain(*asked, wide.api_key.prefix)[0] == 0
    services.revoke_api_key(api_key=wide.api_key)
    code, output = explain(*asked, wide.api_key.prefix)
    assert (code, "is revoked" in output) == (1, True)


def test_an_inactive_account_and_one_without_roles_are_told(bot: Account) -> None:
    create_service(username="idle", roles=[])
    assert "it has no role" in explain("idle", "tools.view", "tool:a")[1]
    bot.is_active = False
    services.save_account(account=bot)
    assert explain("bot", "tools.view", "tool:a") == (1, "bot may not tools.view on tool:a: the account is inactive.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nobody", "tools.view", "tool:a"],
        ["bot", "tools.*", "tool:a"],
        ["bot", "Tools", "tool:a"],
        ["bot", "tools.view", "tool"],
        ["bot", "tools.view", "tool:*"],
        ["bot", "tools.view", "tool:a", "--key", "mcp_unknown"],
        ["bot", "tools.view", "tool:a", "--key", ""],
        ["bot", "tools.view", "tool:a", "--key", "mcp_"],
    ],
)
def test_a_question_that_is_none_is_bad_usage(bot: Account, arguments: list[str]) -> None:
    issue_key(account=bot)
    issue_key(account=bot)
    assert explain(*arguments)[0] == 2

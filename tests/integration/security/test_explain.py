"""Who may do what, and why: the command and the console's page say the same."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from security.models import AddressRule
from tests.factories import allow, create_person, create_role, create_service, deny, issue_key
from tools import services
from tools.models import Tool

pytestmark = pytest.mark.django_db

TOOL = "tool:text.count_words"


def run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with pytest.raises(SystemExit) as caught:
        call_command("explain", *arguments, stdout=output)
    code = caught.value.code
    assert isinstance(code, int)
    return code, output.getvalue()


def ask(console: Client, **fields: str) -> Any:
    return console.get(reverse("admin:security_role_explain"), {"action": "tools.execute", "resource": TOOL, **fields})


@pytest.fixture
def bot() -> str:
    """An account that may run tools from one network, at level high, unless they are labelled."""
    role = create_role(name="careful", grants=[allow("tools.*", "tool:*"), deny("*", "tool:*@label=secret")])
    role.grants.filter(effect="allow").update(conditions={"networks": ["192.0.2.0/24"], "minimum_level": "high"})
    return create_service(username="bot", roles=[role.name]).username


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"--from": "192.0.2.7", "--level": "high"}, 0, "only at the level high or above and from 192.0.2.0/24"),
        ({"--from": "192.0.2.7"}, 1, "but the level high is demanded"),
        ({"--from": "198.51.100.9", "--level": "high"}, 1, "no grant of its roles (careful) allows that"),
        ({"--level": "high"}, 1, "no grant of its roles (careful) allows that"),
        ({"--from": "192.0.2.7", "--level": "high", "--label": "secret"}, 1, "denies * on tool:*@label=secret"),
    ],
)
def test_the_command_and_the_page_say_the_same(
    console: Client, bot: str, options: dict[str, str], code: int, words: str
) -> None:
    found, said = run(bot, "tools.execute", TOOL, *(part for option in options.items() for part in option))
    assert (found, words in said) == (code, True), said
    names = {"--from": "remote_address", "--level": "level", "--label": "labels"}
    page = ask(console, account=bot, **{names[name]: value for name, value in options.items()})
    assert page.context["explanation"].is_allowed is (code == 0)
    assert page.context["explanation"].describe() in said


def test_address_rules_and_a_keys_networks_are_told(console: Client) -> None:
    key = issue_key(networks=["192.0.2.0/24"])
    name = key.api_key.account.username
    AddressRule.objects.create(effect="deny", network="192.0.2.8/32", account=key.api_key.account)
    asked = (name, "tools.execute", TOOL, "--key", key.api_key.prefix, "--from")
    assert run(*asked, "192.0.2.7")[0] == 0
    assert "is taken from 192.0.2.0/24 only" in run(*asked, "198.51.100.9")[1]
    assert "an address rule denies 192.0.2.8/32" in run(*asked, "192.0.2.8")[1]
    page = ask(console, account=name, key=key.api_key.prefix, remote_address="192.0.2.8")
    assert "an address rule denies" in page.content.decode()


def test_labels_and_levels_of_a_tool_that_there_is_are_its_own(bot: str) -> None:
    services.synchronise_tools()
    asked = (bot, "tools.execute", TOOL, "--from", "192.0.2.7", "--level", "high")
    assert run(*asked)[0] == 0
    Tool.objects.filter(name="text.count_words").update(minimum_level="critical")
    assert "the level critical is demanded" in run(*asked)[1]
    Tool.objects.filter(name="text.count_words").update(labels=["secret"])
    assert "label=secret" in run(*asked)[1]


def test_without_an_account_the_page_lists_who_may_and_why(console: Client, bot: str) -> None:
    agent = create_service()
    idle = create_service(roles=[])
    page = ask(console)
    said = {str(each.account): each.describe() for each in page.context["allowed"]}
    assert set(said) == {str(agent), "operator"}
    assert said[str(agent)] == "the role agent allows tools.execute on tool:*"
    page = ask(console, remote_address="192.0.2.7", level="high")
    assert {str(each.account) for each in page.context["allowed"]} == {str(agent), "operator", bot}
    assert str(idle) not in page.content.decode()


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "tools.*"},
        {"action": "Tools"},
        {"resource": "tool"},
        {"resource": "tool:*"},
        {"remote_address": "here"},
        {"account": "nobody"},
        {"account": "operator", "key": "mcp_none"},
    ],
)
def test_what_is_no_question_is_said(console: Client, fields: dict[str, str]) -> None:
    page = ask(console, **fields)
    assert page.status_code == 200
    assert page.context["form"].errors
    assert page.context["explanation"] is None
    assert page.context["allowed"] is None


@pytest.mark.parametrize("arguments", [("operator", "tools.execute", TOOL, "--from", "here")])
def test_a_wrong_address_is_bad_usage(console: Client, arguments: tuple[str, ...]) -> None:  # it makes the operator
    with pytest.raises(CommandError) as caught:
        call_command("explain", *arguments)
    assert caught.value.returncode == 2


def test_the_page_is_for_who_may_look_at_roles_and_accounts(client: Client) -> None:
    client.force_login(create_person(is_staff=True))
    assert ask(client).status_code == 403
    client.logout()
    assert ask(client).status_code == 302

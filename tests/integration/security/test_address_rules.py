"""Rules of addresses at every door, in the console, and the way back in."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from protocol.domain.messages import ApiKeyCredentials, JwtCredentials, PasswordCredentials
from protocol.errors import AuthenticationFailed, IpDenied
from protocol.ports import get_address_guard, get_authenticator
from security import services
from security.models import Account, AddressRule, ApiKey, AuditEvent
from security.selectors import forget_address_rules
from tests.factories import PASSWORD, create_operator, create_person, create_service, issue_key, issue_tokens

pytestmark = pytest.mark.django_db

HOME, AWAY = "192.0.2.7", "198.51.100.9"


@pytest.fixture(autouse=True)
def _fresh_rules() -> Iterator[None]:
    forget_address_rules()
    yield
    forget_address_rules()


def add_rule(
    effect: str, network: str, *, account: Account | None = None, api_key: ApiKey | None = None
) -> AddressRule:
    return AddressRule.objects.create(effect=effect, network=network, account=account, api_key=api_key)


def show_key(secret: str, address: str | None = HOME) -> Any:
    return get_authenticator().authenticate(credentials=ApiKeyCredentials(secret), remote_address=address)


def visit(client: Client, path: str, address: str = HOME) -> Any:
    return client.get(path, headers={"host": "localhost"}, REMOTE_ADDR=address)


# Authenticating


@pytest.mark.parametrize("scope", ["everyone", "account", "key"])
@pytest.mark.parametrize("address", [HOME, f"::ffff:{HOME}"])
def test_a_denied_address_is_refused_at_each_scope(scope: str, address: str) -> None:
    key, other = issue_key(), issue_key()
    scopes: dict[str, dict[str, Any]] = {
        "everyone": {},
        "account": {"account": key.api_key.account},
        "key": {"api_key": key.api_key},
    }
    add_rule("deny", "192.0.2.0/24", **scopes[scope])
    with pytest.raises(IpDenied):
        show_key(key.secret, address)
    assert show_key(key.secret, AWAY)
    if scope != "everyone":
        assert show_key(other.secret, address)


def test_where_a_scope_allows_an_address_must_be_listed() -> None:
    key = issue_key()
    add_rule("allow", "192.0.2.0/24", account=key.api_key.account)
    assert show_key(key.secret, HOME)
    for address in (AWAY, "2001:db8::1", None):
        with pytest.raises(IpDenied):
            show_key(key.secret, address)


def test_a_disabled_rule_does_not_count() -> None:
    key = issue_key()
    rule = add_rule("deny", "0.0.0.0/0")
    rule.is_enabled = False
    rule.save()
    assert show_key(key.secret)


def test_tokens_and_passwords_are_held_to_the_rules_too() -> None:
    key = issue_key()
    pair = issue_tokens(key=key)
    person = create_person(password=PASSWORD)
    add_rule("deny", HOME, api_key=key.api_key)
    add_rule("deny", HOME, account=person)
    authenticate = get_authenticator().authenticate
    with pytest.raises(IpDenied):
        authenticate(credentials=JwtCredentials(pair.access), remote_address=HOME)
    with pytest.raises(IpDenied):
        services.refresh_tokens(refresh_token=pair.refresh, remote_address=HOME, trace_id="t")
    assert services.refresh_tokens(refresh_token=pair.refresh, remote_address=AWAY, trace_id="t").access
    with pytest.raises(IpDenied):
        authenticate(credentials=PasswordCredentials(person.username, PASSWORD), remote_address=HOME)


def test_a_wrong_credential_is_not_told_of_rules() -> None:
    add_rule("deny", "0.0.0.0/0")
    with pytest.raises(AuthenticationFailed):
        show_key("mcp_wrong")


def test_a_network_that_is_broken_in_the_database_opens_nothing() -> None:
    key = issue_key()
    AddressRule.objects.bulk_create([AddressRule(effect="deny", network="nonsense", account=key.api_key.account)])
    forget_address_rules()
    for address in (HOME, "2001:db8::1"):
        with pytest.raises(IpDenied):
            show_key(key.secret, address)


# HTTP


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/api/v1/", "/api/v1/tools/", "/api/v1/openapi.json", "/api/nowhere"])
def test_the_api_refuses_an_address_before_all_else(client: Client, path: str) -> None:
    add_rule("deny", HOME)
    refused = visit(client, path)
    assert (refused.status_code, refused.json()["code"]) == (403, "security.ip_denied")
    assert visit(client, path, AWAY).status_code != 403


@pytest.mark.parametrize("path", ["/admin/login/", "/admin/", "/", "/static/mcp/console.css"])
def test_the_console_is_refused_with_its_sign_in_page(client: Client, path: str) -> None:
    add_rule("allow", AWAY)
    assert visit(client, path).status_code == 403
    assert visit(client, path, AWAY).status_code in (200, 302)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_who_watches_the_server_is_answered(client: Client, path: str) -> None:
    add_rule("deny", "0.0.0.0/0")
    assert visit(client, path).status_code in (200, 503)
    assert b"not allowed" not in visit(client, path).content


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Client-IP", "True-Client-IP"])
def test_no_header_says_where_a_request_comes_from(client: Client, header: str) -> None:
    add_rule("deny", HOME)
    for value in (AWAY, f"{AWAY}, {HOME}", f"for={AWAY}"):
        answer = client.get("/api/v1/", headers={"host": "localhost", header: value}, REMOTE_ADDR=HOME)
        assert answer.status_code == 403


def test_who_is_signed_in_is_held_to_its_accounts_rules(client: Client) -> None:
    person = create_operator()
    client.force_login(person)
    assert visit(client, "/admin/").status_code == 200
    add_rule("deny", HOME, account=person)
    assert visit(client, "/admin/").status_code == 403
    assert visit(client, "/admin/", AWAY).status_code == 200


def test_signing_in_says_that_the_address_is_refused_only_with_the_right_password(client: Client) -> None:
    person = create_person(password=PASSWORD, is_staff=True)
    add_rule("deny", HOME, account=person)

    def sign_in(password: str, address: str) -> Any:
        return client.post(
            reverse("admin:login"), {"username": person.username, "password": password}, REMOTE_ADDR=address
        )

    right, wrong = sign_in(PASSWORD, HOME), sign_in("wrong", HOME)
    assert right.context["form"].errors.as_data()["__all__"][0].code == "ip_denied"
    assert wrong.context["form"].errors.as_data()["__all__"][0].code != "ip_denied"
    assert sign_in(PASSWORD, AWAY).status_code == 302


def test_the_upgrades_guard_is_the_same() -> None:
    add_rule("deny", HOME)
    assert get_address_guard().is_refused(remote_address=f"::ffff:{HOME}")
    assert not get_address_guard().is_refused(remote_address=AWAY)


# Changing


def post_rule(console: Client, path: str, **fields: str) -> Any:
    data = {"effect": "deny", "network": "", "account": "", "api_key": "", "note": "", "is_enabled": "on", **fields}
    return console.post(path, data, REMOTE_ADDR=HOME)


def test_a_rule_that_shuts_its_author_out_has_to_be_confirmed(console: Client) -> None:
    add = reverse("admin:security_addressrule_add")
    for fields in ({"network": "192.0.2.0/24"}, {"effect": "allow", "network": AWAY}):
        refused = post_rule(console, add, **fields)
        assert refused.status_code == 200
        assert refused.context["adminform"].form.errors.as_data()["is_confirmed"][0].code == "locks_out"
    assert not AddressRule.objects.exists()
    assert post_rule(console, add, network="192.0.2.0/24", is_confirmed="on").status_code == 302
    assert AddressRule.objects.get().network == "192.0.2.0/24"
    assert visit(console, "/admin/").status_code == 403


def test_a_rule_is_stored_in_one_form_and_recorded(console: Client, operator: Account) -> None:
    assert (
        post_rule(console, reverse("admin:security_addressrule_add"), network="::ffff:198.51.100.9").status_code == 302
    )
    rule = AddressRule.objects.get()
    assert rule.network == f"{AWAY}/32"
    event = AuditEvent.objects.get(action="addresses.change")
    assert (event.actor_id, event.outcome, event.resource_name) == (operator.id, "added", str(rule.pk))
    again = post_rule(console, reverse("admin:security_addressrule_add"), network=AWAY)
    assert again.status_code == 200
    assert AddressRule.objects.count() == 1


@pytest.mark.parametrize("network", ["", "nonsense", "10.0.0.1/8"])
def test_what_is_no_network_is_not_stored(console: Client, network: str) -> None:
    assert post_rule(console, reverse("admin:security_addressrule_add"), network=network).status_code == 200
    assert not AddressRule.objects.exists()


def test_a_rule_is_for_one_scope(console: Client) -> None:
    key = issue_key()
    fields = {"network": AWAY, "account": str(key.api_key.account_id), "api_key": str(key.api_key.pk)}
    assert post_rule(console, reverse("admin:security_addressrule_add"), **fields).status_code == 200
    assert not AddressRule.objects.exists()


def test_a_rule_is_not_deleted_from_under_its_author(console: Client) -> None:
    mine, other = add_rule("allow", HOME), add_rule("allow", AWAY)
    for rule in (mine, other):
        console.post(reverse("admin:security_addressrule_delete", args=[rule.pk]), {"post": "yes"}, REMOTE_ADDR=HOME)
    assert list(AddressRule.objects.all()) == [mine]


def test_only_superusers_change_rules(client: Client) -> None:
    client.force_login(create_person(is_staff=True))
    assert client.get(reverse("admin:security_addressrule_add")).status_code == 403
    assert client.get(reverse("admin:security_addressrule_changelist")).status_code == 403


def test_the_pages_open(console: Client) -> None:
    rule = add_rule("deny", AWAY, account=create_service())
    for path in (
        reverse("admin:security_addressrule_changelist"),
        reverse("admin:security_addressrule_add"),
        reverse("admin:security_addressrule_change", args=[rule.pk]),
    ):
        assert console.get(path).status_code == 200


# The command line


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("address_rules", *arguments, stdout=output)
    return output.getvalue()


def test_the_way_back_in(client: Client) -> None:
    first, second = add_rule("deny", HOME), add_rule("deny", "0.0.0.0/0")
    assert "refused" in run("--check", HOME)
    run("--disable", str(second.pk))
    assert "let in" in run("--check", AWAY)
    assert f"{first.pk}: deny {HOME}" in run()
    run("--disable-all")
    assert "let in" in run("--check", HOME)
    assert visit(client, "/admin/login/").status_code == 200
    assert not AddressRule.objects.filter(is_enabled=True).exists()
    with pytest.raises(CommandError):
        run("--check", "nonsense")


def test_the_service_refuses_a_lock_out_too(operator: Account) -> None:
    principal = show_key(issue_key(account=operator).secret)
    rule = AddressRule(effect="deny", network=HOME)
    with pytest.raises(ValidationError):
        services.save_address_rule(rule=rule, actor=operator, principal=principal, trace_id="t", is_confirmed=False)
    services.save_address_rule(rule=rule, actor=operator, principal=principal, trace_id="t", is_confirmed=True)
    assert AddressRule.objects.count() == 1

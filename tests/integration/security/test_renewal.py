"""What moves the mark that open connections are watched by, and what becomes of a principal then."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from django.contrib.auth.models import update_last_login
from django.db import transaction
from django.test import Client
from django.urls import reverse
from uuid_utils.compat import uuid7

from protocol.domain.messages import ApiKeyCredentials, ClientInfo, JwtCredentials, PasswordCredentials, SecurityLevel
from protocol.errors import AccessDenied
from protocol.models import OutboxMessage, Session
from protocol.ports import Principal, get_authenticator
from protocol.sessions import end_session, list_revoked, open_session
from security import services
from security.domain.authorization import AccountPrincipal
from security.models import Account, AuditEvent, Grant, RevocationMark, Role
from security.selectors import get_account_principal, get_revocation_mark
from tests.factories import (
    PASSWORD,
    allow,
    create_operator,
    create_person,
    create_role,
    create_service,
    deny,
    issue_key,
    issue_tokens,
    make_principal,
    sign_in,
)
from tests.threads import run_at_once

pytestmark = pytest.mark.django_db


def renew(*principals: Principal) -> list[Principal | None]:
    return get_authenticator().renew(principals)


def renew_one(principal: Principal) -> AccountPrincipal | None:
    (renewed,) = renew(principal)
    assert renewed is None or isinstance(renewed, AccountPrincipal)
    return renewed


def by_key(account: Account) -> Principal:
    credentials = ApiKeyCredentials(issue_key(account=account).secret)
    return get_authenticator().authenticate(credentials=credentials, remote_address=None)


def by_token(account: Account) -> Principal:
    credentials = JwtCredentials(issue_tokens(key=issue_key(account=account)).access)
    return get_authenticator().authenticate(credentials=credentials, remote_address=None)


def by_password() -> tuple[Account, Principal]:
    person = create_person(password=PASSWORD)
    credentials = PasswordCredentials(username=person.username, password=PASSWORD)
    return person, get_authenticator().authenticate(credentials=credentials, remote_address=None)


# The mark


def give_role(account: Account) -> None:
    account.roles.add(create_role(grants=[]))


def give_account(account: Account) -> None:
    create_role(grants=[]).accounts.add(account)


def take_roles(account: Account) -> None:
    account.roles.clear()


def set_roles(account: Account) -> None:
    account.roles.set([])


def disable(account: Account) -> None:
    account.is_active = False
    services.save_account(account=account)


def lower_level(account: Account) -> None:
    account.security_level_max = SecurityLevel.STANDARD.value
    services.save_account(account=account)


def revoke_key(account: Account) -> None:
    services.revoke_api_key(api_key=issue_key(account=account).api_key)


def revoke_token(account: Account) -> None:
    services.revoke_token(token=issue_tokens(key=issue_key(account=account)).access, trace_id="")


def change_grant(account: Account) -> None:
    services.save_grant(
        grant=Grant(role=create_role(grants=[]), effect="allow", action_pattern="*", resource_pattern="*:*")
    )


def delete_grant(account: Account) -> None:
    role = create_role(grants=[allow("*")])
    services.delete_grant(grant=role.grants.get())


def delete_role(account: Account) -> None:
    services.delete_role(role=create_role(grants=[]))


def change_password(account: Account) -> None:
    services.set_password(account=create_person(), password="another horse battery")


CHANGES = [
    give_role,
    give_account,
    take_roles,
    set_roles,
    disable,
    lower_level,
    revoke_key,
    revoke_token,
    change_grant,
    delete_grant,
    delete_role,
    change_password,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_rights_moves_the_mark(change: Callable[[Account], None]) -> None:
    account = create_service()
    mark = get_revocation_mark()
    change(account)
    assert get_revocation_mark() > mark


def test_what_changes_nobodys_rights_leaves_it() -> None:
    account = create_person()
    key = issue_key(account=create_service())
    mark = get_revocation_mark()
    update_last_login(type(account), account)
    services.rename_api_key(api_key=key.api_key, name="other")
    issue_tokens(key=key)
    by_key(key.api_key.account)
    assert services.revoke_token(token="none", trace_id="") is False
    create_person()
    assert get_revocation_mark() == mark


def test_a_change_that_is_undone_leaves_it() -> None:
    account = create_service()
    mark = get_revocation_mark()
    with transaction.atomic():
        disable(account)
        transaction.set_rollback(True)
    assert get_revocation_mark() == mark


def test_editing_an_account_and_a_role_in_the_console_moves_it(client: Client) -> None:
    client.force_login(create_operator())
    account, role = create_service(roles=[]), create_role(grants=[])
    for page, fields in (
        (reverse("admin:security_account_change", args=[account.pk]), {"roles": [role.pk]}),
        (reverse("admin:security_role_change", args=[role.pk]), {}),
    ):
        mark = get_revocation_mark()
        form = client.get(page).context["adminform"].form
        data = {name: value for name, value in form.initial.items() if value is not None and name in form.fields}
        grant = {
            "grants-TOTAL_FORMS": 1,
            "grants-INITIAL_FORMS": 0,
            "grants-0-effect": "allow",
            "grants-0-action_pattern": "tools.*",
            "grants-0-resource_pattern": "tool:*",
        }
        answer = client.post(page, {**data, **grant, "is_active": "on", **fields})
        assert answer.status_code == 302, answer.context["adminform"].form.errors
        assert get_revocation_mark() > mark
    assert list(account.roles.all()) == [role]
    assert role.grants.count() == 1


@pytest.mark.django_db(transaction=True)
def test_no_move_of_eight_at_once_is_lost() -> None:
    RevocationMark.objects.all().delete()
    run_at_once(services.move_revocation_mark, times=8)
    assert get_revocation_mark() == 8


# The principals


def test_what_has_not_changed_is_the_same_object() -> None:
    _, by_its_password = by_password()
    principals = [by_key(create_service()), by_token(create_service()), by_its_password]
    renewed = renew(*principals)
    assert all(now is before for now, before in zip(renewed, principals, strict=True))


def test_changed_rights_are_given_and_the_rest_stays() -> None:
    account = create_service()
    for principal in (by_key(account), by_token(account)):
        role = create_role(grants=[deny("tools.*")])
        account.roles.add(role)
        renewed = renew_one(principal)
        assert renewed is not None
        assert role.name in renewed.roles
        assert deny("tools.*") in renewed.grants
        assert (renewed.credential_id, renewed.expires_at) == (principal.credential_id, principal.expires_at)


def test_a_lower_level_is_given() -> None:
    account = create_service()
    principal = by_key(account)
    lower_level(account)
    renewed = renew_one(principal)
    assert renewed is not None
    assert renewed.security_level_max is SecurityLevel.STANDARD


def revoke_all_keys(account: Account) -> None:
    for api_key in account.api_keys.all():
        services.revoke_api_key(api_key=api_key)


def break_grant(account: Account) -> None:
    role = create_role(grants=[])
    Grant.objects.create(role=role, effect="deny", action_pattern="Tools.(", resource_pattern="*:*")
    account.roles.add(role)


@pytest.mark.parametrize("end", [disable, revoke_all_keys, break_grant])
@pytest.mark.parametrize("show", [by_key, by_token])
def test_what_no_longer_counts_is_none(show: Callable[[Account], Principal], end: Callable[[Account], None]) -> None:
    account, other = create_service(), by_key(create_service())
    principal = show(account)
    end(account)
    assert renew(principal, other, principal) == [None, other, None]


def test_a_revoked_token_is_none_and_its_key_stays() -> None:
    key = issue_key()
    pair = issue_tokens(key=key)
    by_its_key = get_authenticator().authenticate(credentials=ApiKeyCredentials(key.secret), remote_address=None)
    by_its_token = get_authenticator().authenticate(credentials=JwtCredentials(pair.access), remote_address=None)
    services.revoke_token(token=pair.refresh, trace_id="")
    assert renew(by_its_key, by_its_token) == [by_its_key, None]


@pytest.mark.parametrize("end", [services.remove_password, services.reset_password, disable])
def test_a_changed_password_ends_who_showed_it_and_its_tokens(end: Callable[..., object]) -> None:
    person, pair = sign_in()
    credentials = PasswordCredentials(username=person.username, password=PASSWORD)
    by_its_password = get_authenticator().authenticate(credentials=credentials, remote_address=None)
    by_its_token = get_authenticator().authenticate(credentials=JwtCredentials(pair.access), remote_address=None)
    person.refresh_from_db()
    end(account=person)
    assert renew(by_its_password, by_its_token) == [None, None]


def test_who_showed_nothing_or_is_of_another_maker_is_none() -> None:
    other = Principal(
        id=uuid7(), name="x", roles=(), security_level_max=SecurityLevel.LOW, credential_id=uuid7(), expires_at=None
    )
    assert renew(other, make_principal(), get_account_principal(account=create_service())) == [None, None, None]
    assert renew() == []


# Sessions


def open_for(principal: Principal) -> uuid.UUID:
    return open_session(principal=principal, channel="", client=ClientInfo(name="test"), remote_address="127.0.0.1").id


def test_an_operator_ends_a_session_once_and_it_is_recorded() -> None:
    operator = get_account_principal(account=create_operator())
    ended, other = open_for(by_key(create_service())), open_for(by_key(create_service()))
    OutboxMessage.objects.create(session_id=ended, sequence=1, correlation_id="c", kind="response", payload=b"{}")
    mark = get_revocation_mark()
    assert services.revoke_session(session_id=ended, principal=operator, trace_id="t") is True
    assert get_revocation_mark() == mark + 1
    assert services.revoke_session(session_id=ended, principal=operator, trace_id="t") is False
    assert services.revoke_session(session_id=uuid7(), principal=operator, trace_id="t") is False
    assert list_revoked(session_ids=[ended, other]) == {ended}
    assert Session.objects.get(id=ended).close_code == 4403
    assert not OutboxMessage.objects.exists()
    event = AuditEvent.objects.get()
    assert (event.action, event.resource_kind, event.resource_name) == ("sessions.revoke", "session", str(ended))
    assert (event.actor_id, event.outcome, event.trace_id) == (operator.id, "revoked", "t")


def test_a_session_that_ended_otherwise_was_not_revoked() -> None:
    session_id = open_for(by_key(create_service()))
    end_session(session_id=session_id, close_code=1000)
    operator = get_account_principal(account=create_operator())
    assert services.revoke_session(session_id=session_id, principal=operator, trace_id="") is False
    assert list_revoked(session_ids=[session_id]) == set()


def test_who_may_not_end_a_session_does_not() -> None:
    agent = by_key(create_service(roles=[]))
    session_id = open_for(agent)
    with pytest.raises(AccessDenied):
        services.revoke_session(session_id=session_id, principal=agent, trace_id="")
    role = Role.objects.get(name=create_role(grants=[allow("sessions.revoke", "session:*@own")]).name)
    account = Account.objects.get(pk=agent.id)
    account.roles.add(role)
    (renewed,) = renew(agent)
    assert renewed is not None
    assert services.revoke_session(session_id=session_id, principal=renewed, trace_id="") is True

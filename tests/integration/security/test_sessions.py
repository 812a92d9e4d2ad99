"""Sessions that are listed and ended, one or all of an account."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from protocol.domain.messages import ApiKeyCredentials, JwtCredentials, PasswordCredentials
from protocol.errors import AccessDenied, AuthenticationFailed
from protocol.models import Session
from protocol.ports import Principal, get_authenticator
from security import selectors, services
from security.models import Account, AuditEvent, IssuedToken
from security.services import IssuedKey
from tests.factories import (
    PASSWORD,
    allow,
    create_operator,
    create_person,
    create_role,
    create_service,
    issue_key,
    issue_tokens,
    sign_in,
)

pytestmark = pytest.mark.django_db

HOME = "192.0.2.7"


def connect(account: Account, *, credential_id: uuid.UUID | None = None, **fields: Any) -> Session:
    return Session.objects.create(
        account=account, credential_id=credential_id or uuid.uuid4(), channel="c", remote_address=HOME, **fields
    )


def show(key: IssuedKey) -> Principal:
    return get_authenticator().authenticate(credentials=ApiKeyCredentials(key.secret), remote_address=HOME)


def list_ids(principal: Principal, **asked: Any) -> list[str]:
    page = selectors.list_sessions(
        principal=principal, **{"account": None, "current": None, "cursor": None, "limit": 50, **asked}
    )
    return [session.id for session in page.sessions]


def ask(client: Client, key: IssuedKey, method: str, path: str) -> Any:
    headers = {"host": "localhost", "authorization": f"Bearer {key.secret}"}
    return client.generic(method, f"/api/v1/{path}", b"{}", content_type="application/json", headers=headers)


def test_an_account_sees_its_own_and_an_operator_all() -> None:
    key, other = issue_key(), issue_key()
    operator = issue_key(account=create_operator())
    mine = [connect(key.api_key.account), connect(key.api_key.account)]
    theirs = connect(other.api_key.account)
    ended = connect(key.api_key.account)
    services.revoke_session(session_id=ended.id, principal=show(key), trace_id="t")
    assert list_ids(show(key)) == [str(session.id) for session in reversed(mine)]
    assert list_ids(show(other)) == [str(theirs.id)]
    assert len(list_ids(show(operator))) == 3
    assert list_ids(show(operator), account=other.api_key.account.username) == [str(theirs.id)]
    assert list_ids(show(key), account=other.api_key.account.username) == []
    assert list_ids(show(operator), account="nobody") == []


def test_pages_follow_each_other() -> None:
    key = issue_key()
    expected = [str(connect(key.api_key.account).id) for _ in range(5)][::-1]
    seen: list[str] = []
    cursor = None
    while True:
        page = selectors.list_sessions(principal=show(key), account=None, current=None, cursor=cursor, limit=2)
        seen += [session.id for session in page.sessions]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == expected


def test_a_session_tells_from_where_it_was_opened_and_by_what() -> None:
    key = issue_key()
    account = key.api_key.account
    pair = issue_tokens(key=key)
    for credential_id in (key.api_key.id, pair.access_jti, uuid.uuid4()):
        connect(account, credential_id=credential_id, client_name="shell", security_level="high")
    page = selectors.list_sessions(principal=show(key), account=None, current=None, cursor=None, limit=9)
    prefix = key.api_key.prefix
    assert [session.credential for session in page.sessions] == [
        "password",
        f"token of key {prefix} (test)",
        f"key {prefix} (test)",
    ]
    assert {(each.address, each.client, each.security_level) for each in page.sessions} == {(HOME, "shell", "high")}


def test_ending_a_session_ends_the_tokens_of_its_sign_in_and_no_others() -> None:
    key = issue_key()
    first, second = issue_tokens(key=key), issue_tokens(key=key)
    session = connect(key.api_key.account, credential_id=first.access_jti)
    assert services.revoke_session(session_id=session.id, principal=show(key), trace_id="t") is True
    assert services.revoke_session(session_id=session.id, principal=show(key), trace_id="t") is False
    authenticate = get_authenticator().authenticate
    with pytest.raises(AuthenticationFailed):
        authenticate(credentials=JwtCredentials(first.access), remote_address=None)
    assert authenticate(credentials=JwtCredentials(second.access), remote_address=None).name
    assert AuditEvent.objects.filter(action="sessions.revoke", resource_name=str(session.id)).count() == 1


def test_signing_out_everywhere_ends_sockets_tokens_and_the_console_together(client: Client) -> None:
    person, pair = sign_in()
    person.is_staff = True
    person.save()
    client.force_login(person)
    assert client.get(reverse("admin:index")).status_code == 200
    key = issue_key(account=person)
    sessions = [connect(person), connect(person)]
    others = connect(create_service())
    mark = selectors.get_revocation_mark()

    ended = services.end_sign_ins(account_id=person.id, principal=None, trace_id="")

    assert (ended.sessions, ended.token_families) == (2, 1)
    assert selectors.get_revocation_mark() > mark
    assert set(Session.objects.filter(close_code=4403)) == set(sessions)
    assert Session.objects.get(id=others.id).ended_at is None
    assert not IssuedToken.objects.filter(account=person, revoked_at=None).exists()
    with pytest.raises(AuthenticationFailed):
        get_authenticator().authenticate(credentials=JwtCredentials(pair.access), remote_address=None)
    assert client.get(reverse("admin:index")).status_code == 302
    assert show(key).name
    assert AuditEvent.objects.get(action="sessions.revoke").resource_name == "all"


def test_passwords_connections_do_not_survive_signing_out() -> None:
    person = create_person(password=PASSWORD)
    principal = services.CredentialsAuthenticator().authenticate(
        credentials=PasswordCredentials(person.username, PASSWORD),
        remote_address=None,
    )
    assert get_authenticator().renew([principal]) == [principal]
    services.end_sign_ins(account_id=person.id, principal=None, trace_id="")
    assert get_authenticator().renew([principal]) == [None]


def test_who_may_sign_whom_out() -> None:
    key, other = issue_key(), issue_key()
    bare = issue_key(account=create_service(roles=[]))
    warden = create_service(roles=[create_role(grants=[allow("sessions.*", "session:*")]).name])
    username = other.api_key.account.username
    services.revoke_all_sessions(username=None, principal=show(key), trace_id="t")
    services.revoke_all_sessions(username=username, principal=show(issue_key(account=warden)), trace_id="t")
    for principal, name in ((show(key), username), (show(key), "nobody"), (show(bare), None)):
        with pytest.raises(AccessDenied):
            services.revoke_all_sessions(username=name, principal=principal, trace_id="t")


@pytest.mark.django_db(transaction=True)
def test_sessions_over_rest(client: Client) -> None:
    key, other = issue_key(), issue_key()
    mine, theirs = connect(key.api_key.account), connect(other.api_key.account)
    listed = ask(client, key, "GET", "sessions/").json()
    assert [session["id"] for session in listed["sessions"]] == [str(mine.id)]
    assert ask(client, key, "DELETE", f"sessions/{theirs.id}/").status_code == 403
    assert ask(client, key, "DELETE", f"sessions/{mine.id}/").json() == {"revoked": True}
    assert ask(client, key, "DELETE", f"sessions/{mine.id}/").json() == {"revoked": False}
    assert ask(client, key, "DELETE", f"sessions/{uuid.uuid4()}/").json() == {"revoked": False}
    connect(key.api_key.account)
    assert ask(client, key, "POST", "sessions/revoke-all/").json() == {"sessions": 1, "token_families": 0}
    assert Session.objects.get(id=theirs.id).ended_at is None


def test_the_command_line_signs_out() -> None:
    account = create_service(username="bot")
    connect(account)
    output = io.StringIO()
    call_command("revoke_sessions", "bot", stdout=output)
    assert "1 connections" in output.getvalue()
    assert not Session.objects.filter(ended_at=None).exists()


def test_the_console_signs_an_account_out(console: Client) -> None:
    account = create_service()
    connect(account)
    page = reverse("admin:security_account_change", args=[account.pk])
    assert "Sign out everywhere" in console.get(page).content.decode()
    console.post(reverse("admin:security_account_sign_out", args=[account.pk]), {"_form_submitted": "on"})
    assert not Session.objects.filter(ended_at=None).exists()


def test_the_pages_of_tokens_open_and_end_a_sign_in(console: Client) -> None:
    pair = issue_tokens()
    row = IssuedToken.objects.get(id=pair.access_jti)
    assert console.get(reverse("admin:security_issuedtoken_changelist")).status_code == 200
    page = console.get(reverse("admin:security_issuedtoken_change", args=[row.pk]))
    assert "Revoke sign-in" in page.content.decode()
    console.post(reverse("admin:security_issuedtoken_revoke_sign_in", args=[row.pk]), {"_form_submitted": "on"})
    assert not IssuedToken.objects.filter(family_id=row.family_id, revoked_at=None).exists()
    session = connect(row.account, credential_id=row.id)
    page = console.get(reverse("admin:protocol_session_change", args=[session.pk]))
    assert "token of key" in page.content.decode()

"""Sessions as commands: what is open, from where, and ending it."""

from __future__ import annotations

import uuid
from typing import Annotated

from msgspec import Meta, Struct

from protocol.registry import CommandContext, command
from security import selectors, services
from security.selectors import REVOKE_SESSIONS, VIEW_SESSIONS, SessionPage

AccountName = Annotated[str, Meta(max_length=150)]


class ListSessionsArguments(Struct, frozen=True, forbid_unknown_fields=True):
    account: Annotated[AccountName | None, Meta(description="Only those of the account of this name.")] = None
    cursor: Annotated[
        Annotated[str, Meta(max_length=200)] | None, Meta(description="The `next_cursor` of the page before.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=200, description="Of a page.")] = 50


class RevokeSessionArguments(Struct, frozen=True, forbid_unknown_fields=True):
    session: uuid.UUID


class RevokeAllArguments(Struct, frozen=True, forbid_unknown_fields=True):
    account: Annotated[AccountName | None, Meta(description="Whose; by default the caller's own.")] = None


class Revoked(Struct, frozen=True):
    revoked: bool
    """Whether it was open until now."""


class RevokedAll(Struct, frozen=True, kw_only=True):
    sessions: int
    """Connections that close."""
    token_families: int
    """Sign-ins whose tokens count no more."""


@command("sessions.list", action=VIEW_SESSIONS)
def list_sessions(context: CommandContext, arguments: ListSessionsArguments) -> SessionPage:
    """The open sessions that the caller may see, the newest first, in pages: whose, from where, since when."""
    return selectors.list_sessions(
        principal=context.principal,
        account=arguments.account,
        current=context.peer.session_id,
        cursor=arguments.cursor,
        limit=arguments.limit,
    )


@command("sessions.revoke", action=REVOKE_SESSIONS, changes=True)
def revoke_session(context: CommandContext, arguments: RevokeSessionArguments) -> Revoked:
    """End a session, and the tokens of the sign-in that it was opened by; its connection closes within a second."""
    return Revoked(
        services.revoke_session(session_id=arguments.session, principal=context.principal, trace_id=context.trace_id)
    )


@command("sessions.revoke_all", action=REVOKE_SESSIONS, changes=True)
def revoke_all_sessions(context: CommandContext, arguments: RevokeAllArguments) -> RevokedAll:
    """End all that an account is signed in to: its connections, its tokens and the console. Its keys still count."""
    ended = services.revoke_all_sessions(
        username=arguments.account, principal=context.principal, trace_id=context.trace_id
    )
    return RevokedAll(sessions=ended.sessions, token_families=ended.token_families)

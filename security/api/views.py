"""``auth/token/``, ``auth/refresh/`` and ``auth/revoke/``: the credentials are in the body, no header is needed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, TypeVar

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from msgspec import Meta, Struct

from protocol import dispatch, ports
from protocol.api.authentication import authenticate, get_remote_address
from protocol.api.openapi import Access, Content, Description, Reply
from protocol.api.requests import ApiView, read_object
from protocol.api.responses import respond_with_json
from protocol.database_threads import get_database_threads
from protocol.domain.messages import ApiKeyCredentials, Authentication, PasswordCredentials
from protocol.errors import InvalidArguments
from security import services
from security.services import IssuedTokens

T = TypeVar("T")
MAX_TOKEN_LENGTH: Final = 4096
TAG: Final = "authentication"
_ACCESS: Final = "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJqdGkiOiIwMWExZmE3OCJ9.c2lnbmF0dXJl"
_REFRESH: Final = "eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJqdGkiOiIwMWExZmE3OSJ9.c2lnbmF0dXJl"

TokenText = Annotated[str, Meta(min_length=1, max_length=MAX_TOKEN_LENGTH)]


class TokenRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Either a key, or a name with its password, and the code of a second factor where the account has one."""

    key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=512)] | None, Meta(description="An account's API key.")
    ] = None
    username: Annotated[Annotated[str, Meta(min_length=1, max_length=150)] | None, Meta(description="A person's.")] = (
        None
    )
    password: Annotated[Annotated[str, Meta(min_length=1, max_length=1024)] | None, Meta(description="With it.")] = None
    code: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)] | None,
        Meta(description="Of the person's authenticator app, or a recovery code; where there is a second factor."),
    ] = None

    def __repr__(self) -> str:
        return "TokenRequest(<hidden>)"


class RefreshRequest(Struct, frozen=True, forbid_unknown_fields=True):
    refresh: Annotated[TokenText, Meta(description="The pair's refresh token; it counts once.")]

    def __repr__(self) -> str:
        return "RefreshRequest(<hidden>)"


class RevokeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    token: Annotated[TokenText, Meta(description="An access or a refresh token.")]

    def __repr__(self) -> str:
        return "RevokeRequest(<hidden>)"


class TokenPair(Struct, frozen=True, kw_only=True):
    """A pair of tokens."""

    access: str
    """For ``Authorization: Bearer``, and for the socket's method ``jwt``."""
    refresh: str
    """For the next pair, once."""
    access_expires_at: datetime
    refresh_expires_at: datetime

    def __repr__(self) -> str:
        return f"TokenPair(access_expires_at={self.access_expires_at})"


class StrangersView(ApiView):
    """A view for those who have no token yet: counted by address."""

    body_type: ClassVar[type[Struct]]
    body_example: ClassVar[dict[str, Any]]

    def make_description(self, *, operation_id: str, summary: str, text: str, reply: Reply, status: int) -> Description:
        return Description(
            id=operation_id,
            tag=TAG,
            summary=summary,
            text=f"{summary} {text}",
            access=Access.PUBLIC,
            body=Content(schema=self.body_type, example=self.body_example),
            replies={status: reply},
        )

    async def read(self, request: HttpRequest, of: type[T]) -> T:
        """The body, typed; the request is counted.

        Raises:
            RateLimited: one too many from this address.
        """
        self.allowance = await ports.get_limiter().take_address(
            counted=ports.StrangersCount.SIGN_INS, address=get_remote_address(request)
        )
        return dispatch.convert_values(values=read_object(request), target=of)


class TokenView(StrangersView):
    """``POST auth/token/``."""

    body_type = TokenRequest
    body_example: ClassVar = {"key": "mcp_4hX…"}

    def describe_operation(self, method: str) -> Description:  # noqa: ARG002  # it has one
        """As the document tells it."""
        return self.make_description(
            operation_id="issueTokens",
            summary="A pair of tokens for an API key, or for a person's name and password.",
            text="The tokens may do what the key may. Too many wrong passwords are `security.locked_out`.",
            reply=make_pair_reply(),
            status=200,
        )

    async def post(self, request: HttpRequest) -> HttpResponseBase:
        """Judge the credentials and issue a pair."""
        credentials = make_credentials(await self.read(request, TokenRequest))
        address = get_remote_address(request)
        caller = await authenticate(credentials=credentials, remote_address=address)
        issued = await get_database_threads().run(
            services.issue_tokens, principal=caller.principal, remote_address=address, trace_id=self.trace_id
        )
        return respond_with_pair(issued)


class RefreshView(StrangersView):
    """``POST auth/refresh/``."""

    body_type = RefreshRequest
    body_example: ClassVar = {"refresh": _REFRESH}

    def describe_operation(self, method: str) -> Description:  # noqa: ARG002  # it has one
        """As the document tells it."""
        return self.make_description(
            operation_id="refreshTokens",
            summary="The next pair, for a refresh token that was not used before.",
            text="A used one that comes again revokes all tokens of its sign-in.",
            reply=make_pair_reply(),
            status=200,
        )

    async def post(self, request: HttpRequest) -> HttpResponseBase:
        """Spend the refresh token."""
        asked = await self.read(request, RefreshRequest)
        issued = await get_database_threads().run(
            services.refresh_tokens,
            refresh_token=asked.refresh,
            remote_address=get_remote_address(request),
            trace_id=self.trace_id,
        )
        return respond_with_pair(issued)


class RevokeView(StrangersView):
    """``POST auth/revoke/`` (as RFC 7009: also for a token that is none)."""

    body_type = RevokeRequest
    body_example: ClassVar = {"token": _REFRESH}

    def describe_operation(self, method: str) -> Description:  # noqa: ARG002  # it has one
        """As the document tells it."""
        return self.make_description(
            operation_id="revokeTokens",
            summary="End a token, and all that came of the same sign-in.",
            text="Open connections by them close within a second. The answer is the same for what is no token.",
            reply=Reply(description="It does not count, whatever it was."),
            status=204,
        )

    async def post(self, request: HttpRequest) -> HttpResponseBase:
        """Revoke the token's family."""
        asked = await self.read(request, RevokeRequest)
        await get_database_threads().run(services.revoke_token, token=asked.token, trace_id=self.trace_id)
        return HttpResponse(status=204)


def make_credentials(asked: TokenRequest) -> Authentication:
    """The credentials of a request.

    Raises:
        InvalidArguments: neither or both kinds are there.
    """
    if asked.key is not None and asked.username is None and asked.password is None and asked.code is None:
        return ApiKeyCredentials(key=asked.key)
    if asked.key is None and asked.username is not None and asked.password is not None:
        return PasswordCredentials(username=asked.username, password=asked.password, code=asked.code)
    raise InvalidArguments("Send either key, or username and password.", details={"path": "arguments"})


def make_pair_reply() -> Reply:
    example = {
        "access": _ACCESS,
        "refresh": _REFRESH,
        "access_expires_at": "2026-11-20T19:54:16.836Z",
        "refresh_expires_at": "2026-12-04T19:39:16.836Z",
    }
    return Reply(description="The pair.", content=Content(schema=TokenPair, example=example))


def respond_with_pair(issued: IssuedTokens) -> HttpResponse:
    """The pair as JSON, which no cache keeps."""
    pair = TokenPair(
        access=issued.access,
        refresh=issued.refresh,
        access_expires_at=issued.access_expires_at,
        refresh_expires_at=issued.refresh_expires_at,
    )
    return respond_with_json(pair, status=200)

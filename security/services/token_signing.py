"""Signing tokens and checking their signatures: simplejwt with a backend of ours.

The algorithm is pinned and never read from a token; the key is named by the token's ``kid`` and looked up among ours.
Whether a token that is signed well still counts is ``tokens``' and ``authentication``'s.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import jwt
from django.conf import settings
from jwt import InvalidTokenError
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.tokens import Token

from security.domain import tokens
from security.domain.tokens import Claims, SigningKey, TokenInvalid, TokenKind

MAX_REMEMBERED: Final = 4_096
"""Tokens whose signature was found good and need not be checked again."""
MAX_SKEW: Final = timedelta(minutes=1)
"""How far ahead the clock of the node that issued a token may be. Its end is checked by itself, and without this."""


class Ed25519Backend(TokenBackend):
    """simplejwt's backend with Ed25519 keys that tokens name by their ``kid``."""

    def __init__(self, *, keys: Mapping[str, SigningKey], active_id: str) -> None:
        super().__init__(tokens.ALGORITHM, leeway=MAX_SKEW)
        self._keys = keys
        self._active = keys[active_id]

    def encode(self, payload: dict[str, Any]) -> str:
        return jwt.encode(
            payload, self._active.private_key, algorithm=tokens.ALGORITHM, headers={"kid": self._active.id}
        )

    def get_verifying_key(self, token: Any) -> Any:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except InvalidTokenError as error:
            raise TokenBackendError("Token is invalid") from error
        key = self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise TokenBackendError("Token is invalid")
        return key.public_key


class _OwnToken(Token):
    # Set for each token; simplejwt makes none without.
    lifetime = timedelta(0)

    def get_token_backend(self) -> TokenBackend:
        return _get_signer().backend


class AccessToken(_OwnToken):
    token_type = TokenKind.ACCESS.value


class RefreshToken(_OwnToken):
    token_type = TokenKind.REFRESH.value


class _Signer:
    """The backend of one secret and what it found good; for all threads."""

    def __init__(self, *, secret: str) -> None:
        key = tokens.derive_signing_key(secret=secret)
        self.backend = Ed25519Backend(keys={key.id: key}, active_id=key.id)
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, token: str, *, now: datetime) -> Claims:
        digest = tokens.hash_token(token)
        with self._lock:
            claims = self._verified.get(digest)
            if claims is not None:
                self._verified.move_to_end(digest)
        if claims is None:
            claims = self._decode(token)
            with self._lock:
                self._verified[digest] = claims
                if len(self._verified) > MAX_REMEMBERED:
                    self._verified.popitem(last=False)
        if claims.expires_at <= now:
            raise TokenInvalid
        return claims

    def _decode(self, token: str) -> Claims:
        if not token.isascii():
            raise TokenInvalid
        try:
            payload = self.backend.decode(token)  # type: ignore[arg-type]  # simplejwt calls the text a token
            expires_at = datetime.fromtimestamp(payload["exp"], tz=UTC)
        # The last one: a stranger may nest a header as deep as its length allows.
        except (TokenBackendError, KeyError, RecursionError) as error:
            raise TokenInvalid from error
        return tokens.parse_claims(payload, expires_at=expires_at)


def sign_token(
    *, token_id: uuid.UUID, account_id: uuid.UUID, kind: TokenKind, issued_at: datetime, expires_at: datetime
) -> str:
    """The text of a token that says this; times to the second."""
    token = AccessToken() if kind is TokenKind.ACCESS else RefreshToken()
    token["jti"], token["sub"] = str(token_id), str(account_id)
    token.set_iat(at_time=issued_at)
    token.set_exp(from_time=expires_at, lifetime=timedelta(0))
    return str(token)


def verify_token(*, token: str, now: datetime) -> Claims:
    """What a token of ours says; its signature is checked once, its expiry each time.

    Raises:
        TokenInvalid: it is none of ours, or has expired.
    """
    return _get_signer().verify(token, now=now)


def _get_signer() -> _Signer:
    return _make_signer(settings.SECRET_KEY)


@lru_cache(maxsize=2)
def _make_signer(secret: str) -> _Signer:
    return _Signer(secret=secret)

"""Signing tokens and checking their signatures: simplejwt with a backend of ours.

The algorithm is pinned by the key and never read from a token; the token's ``kid`` names the key, which is looked up in
the key ring. So a token that an older key signed goes on counting after a rotation, until that key is retired.
Whether a token that is signed well still counts is ``tokens``' and ``authentication``'s.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt import InvalidTokenError
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.tokens import Token

from security.domain import tokens
from security.domain.key_states import KeyPurpose
from security.domain.tokens import Claims, TokenInvalid, TokenKind
from security.services.keyring import get_keyring

MAX_REMEMBERED: Final = 4_096
"""Tokens whose signature was found good and need not be checked again."""
MAX_SKEW: Final = timedelta(minutes=1)
"""How far ahead the clock of the node that issued a token may be. Its end is checked by itself, and without this."""


class RingBackend(TokenBackend):
    """simplejwt's backend with the key ring's keys, which tokens name by their ``kid``."""

    def __init__(self) -> None:
        super().__init__(tokens.ALGORITHM, leeway=MAX_SKEW)

    def encode(self, payload: dict[str, Any]) -> str:
        key = get_keyring().get_signing_key(KeyPurpose.JWT)
        return jwt.encode(payload, key.private_key, algorithm=tokens.ALGORITHM, headers={"kid": key.id})

    def get_verifying_key(self, token: Any) -> Any:
        key = find_verifying_key(get_key_id(token))
        if key is None:
            raise TokenBackendError("Token is invalid")
        return key


def get_key_id(token: Any) -> str:
    """The ``kid`` that a token states, checked by nothing; empty where it states none.

    Raises:
        TokenBackendError: the text is no token.
    """
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except InvalidTokenError as error:
        raise TokenBackendError("Token is invalid") from error
    return key_id if isinstance(key_id, str) else ""


def find_verifying_key(key_id: str) -> Ed25519PublicKey | None:
    """The ring's public key of this id, if tokens are signed with it."""
    return get_keyring(key_id=key_id).get_verifying_key(KeyPurpose.JWT, key_id)


class _OwnToken(Token):
    # Set for each token; simplejwt makes none without.
    lifetime = timedelta(0)

    def get_token_backend(self) -> TokenBackend:
        return _BACKEND


class AccessToken(_OwnToken):
    token_type = TokenKind.ACCESS.value


class RefreshToken(_OwnToken):
    token_type = TokenKind.REFRESH.value


class _Verified:
    """What was found good, and under which key; for all threads."""

    def __init__(self) -> None:
        self._claims: OrderedDict[bytes, tuple[str, Claims]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, digest: bytes) -> tuple[str, Claims] | None:
        with self._lock:
            found = self._claims.get(digest)
            if found is not None:
                self._claims.move_to_end(digest)
            return found

    def add(self, digest: bytes, *, key_id: str, claims: Claims) -> None:
        with self._lock:
            self._claims[digest] = key_id, claims
            if len(self._claims) > MAX_REMEMBERED:
                self._claims.popitem(last=False)


_BACKEND: Final = RingBackend()
_verified: Final = _Verified()


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
    digest = tokens.hash_token(token)
    found = _verified.find(digest)
    # A signature that was good stays so, as long as its key counts.
    if found is not None and find_verifying_key(found[0]) is not None:
        claims = found[1]
    else:
        claims = _decode(token)
        _verified.add(digest, key_id=get_key_id(token), claims=claims)
    if claims.expires_at <= now:
        raise TokenInvalid
    return claims


def _decode(token: str) -> Claims:
    if not token.isascii():
        raise TokenInvalid
    try:
        payload = _BACKEND.decode(token)  # type: ignore[arg-type]  # simplejwt calls the text a token
        expires_at = datetime.fromtimestamp(payload["exp"], tz=UTC)
    # The last one: a stranger may nest a header as deep as its length allows.
    except (TokenBackendError, KeyError, RecursionError) as error:
        raise TokenInvalid from error
    return tokens.parse_claims(payload, expires_at=expires_at)

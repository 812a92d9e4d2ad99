"""A small OpenID Connect provider on loopback, with its own keys: good, or wrong in the way that a test asks for.

It is written from the specifications with ``cryptography`` alone: nothing that the server stands on checks itself.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

CLIENT_ID = "console"
CLIENT_SECRET = "a-secret-of-the-client"


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode_json(value: Any) -> str:
    return encode(json.dumps(value).encode())


def encode_number(number: int) -> str:
    return encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))


@functools.cache
def make_private_key(name: str) -> rsa.RSAPrivateKey:
    """The same for the same name: making one takes a while."""
    return rsa.generate_private_key(65537, 2048)


@dataclass(kw_only=True)
class Key:
    """A signing key of the provider's."""

    kid: str
    name: str = ""
    """Which key it is; without it the one of the id."""

    @property
    def private(self) -> rsa.RSAPrivateKey:
        return make_private_key(self.name or self.kid)

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self.private.public_key().public_numbers()
        common = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid}
        return {**common, "n": encode_number(numbers.n), "e": encode_number(numbers.e)}

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def sign_rs256(claims: dict[str, Any], key: Key) -> str:
    signed = f"{encode_json({'alg': 'RS256', 'kid': key.kid})}.{encode_json(claims)}"
    return f"{signed}.{encode(key.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def sign_none(claims: dict[str, Any], key: Key) -> str:
    return f"{encode_json({'alg': 'none', 'kid': key.kid})}.{encode_json(claims)}."


def sign_with_public_key(claims: dict[str, Any], key: Key) -> str:
    """HS256 with what everybody knows."""
    signed = f"{encode_json({'alg': 'HS256', 'kid': key.kid})}.{encode_json(claims)}"
    return f"{signed}.{encode(hmac.digest(key.public_pem, signed.encode(), 'sha256'))}"


def sign_with_secret(claims: dict[str, Any], key: Key) -> str:
    """HS256 with the client's secret, which OpenID Connect allows where it was agreed."""
    signed = f"{encode_json({'alg': 'HS256'})}.{encode_json(claims)}"
    return f"{signed}.{encode(hmac.digest(CLIENT_SECRET.encode(), signed.encode(), 'sha256'))}"


def sign_by_own_key(claims: dict[str, Any], key: Key) -> str:
    """With a key that the token itself brings along, under the provider's id."""
    own = Key(kid=key.kid, name="own")
    signed = f"{encode_json({'alg': 'RS256', 'kid': key.kid, 'jwk': own.jwk})}.{encode_json(claims)}"
    return f"{signed}.{encode(own.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@dataclass(kw_only=True)
class OpenIDProvider:
    """What it says, and what it was asked."""

    server: HTTPServer
    path: str = field(default_factory=lambda: f"/{secrets.token_hex(4)}")
    """Below which it lies: several share a server."""
    key: Key = field(default_factory=lambda: Key(kid="first"))
    person: dict[str, Any] = field(default_factory=dict)
    """The claims of whoever is signed in there."""
    wrong: dict[str, Any] = field(default_factory=dict)
    """Claims that take the place of what is right; ``None``: left out."""
    metadata: dict[str, Any] = field(default_factory=dict)
    sign: Callable[[dict[str, Any], Key], str] = sign_rs256
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answer: Callable[[str], Response | None] = lambda _path: None
    """What is answered instead."""

    def __post_init__(self) -> None:
        self.server.expect_request(f"{self.path}/.well-known/openid-configuration").respond_with_handler(
            self._wrap(self._describe)
        )
        self.server.expect_request(f"{self.path}/keys").respond_with_handler(self._wrap(self._show_keys))
        self.server.expect_request(f"{self.path}/authorize").respond_with_handler(self._wrap(self._authorize))
        self.server.expect_request(f"{self.path}/token").respond_with_handler(self._wrap(self._give_token))

    @property
    def issuer(self) -> str:
        return str(self.server.url_for(self.path))

    def give_code(self, query: dict[str, str]) -> str:
        """A code for what the browser was sent here with, as if the person had signed in."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return code

    def _wrap(self, handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
        def handle(request: Request) -> Response:
            path = request.path.removeprefix(self.path)
            self.asked.append(path)
            return self.answer(path) or handler(request)

        return handle

    def _describe(self, _request: Request) -> Response:
        return answer_json(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
                **self.metadata,
            }
        )

    def _show_keys(self, _request: Request) -> Response:
        return answer_json({"keys": [self.key.jwk]})

    def _authorize(self, request: Request) -> Response:
        query = request.args.to_dict()
        back = urlencode({"code": self.give_code(query), "state": query["state"], "iss": self.issuer})
        return Response(status=302, headers={"Location": f"{query['redirect_uri']}?{back}"})

    def _give_token(self, request: Request) -> Response:
        query = self.codes.pop(request.form.get("code", ""), None)
        given = request.authorization
        is_client = given is not None and (given.username, given.password) == (CLIENT_ID, CLIENT_SECRET)
        digest = encode(hashlib.sha256(request.form.get("code_verifier", "").encode()).digest())
        if (
            query is None
            or not is_client
            or query["code_challenge_method"] != "S256"
            or digest != query["code_challenge"]
            or request.form.get("redirect_uri") != query["redirect_uri"]
        ):
            return answer_json({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": query["nonce"],
            **self.person,
            **self.wrong,
        }
        token = self.sign({name: value for name, value in claims.items() if value is not None}, self.key)
        return answer_json({"access_token": "opaque", "token_type": "Bearer", "id_token": token})


def answer_json(value: Any, *, status: int = 200) -> Response:
    return Response(json.dumps(value), status=status, content_type="application/json")


@contextmanager
def run_server() -> Iterator[HTTPServer]:
    """Where providers lie, at a free port."""
    with HTTPServer(host="127.0.0.1", port=0, threaded=True) as server:
        yield server

"""The provider of OpenID Connect: where it is asked, its keys, and whether an ID token of its is good.

Authlib makes the requests and the checks of OpenID Connect Core 1.0, section 3.1.3.7; joserfc checks the signature,
with the algorithm that the settings name and never with one that a token names. Nothing here touches the database, and
nothing blocks: it is awaited on the event loop. Imported at the first use, since Authlib is slow to import.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import msgspec
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from security.domain.openid import Provider, ProviderIdentity, Refusal, is_safe_url, read_identity
from security.services.sign_on import SignOnRefused

logger = logging.getLogger(__name__)

TIMEOUT: Final = httpx2.Timeout(5.0)
"""Of each step of a request: connecting, writing, reading."""
EXCHANGE_SECONDS: Final = 10.0
"""Of all that is asked for one page."""
MAX_ANSWER_BYTES: Final = 256 * 1024
CACHE_SECONDS: Final = 3600.0
"""How long the provider's description and keys are believed."""
REFETCH_SECONDS: Final = 30.0
"""How often at most the keys are asked for again because a token names one that is not known."""
AWAY_SECONDS: Final = 5.0
"""How long a provider that was away is not asked again."""
LEEWAY_SECONDS: Final = 60
"""How far the clocks may be apart."""


class ProviderUnavailable(Exception):
    """The provider does not answer, or not as one does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A sign-on that was begun: where the browser is led, and what its way back is held to."""

    url: str
    state: str
    nonce: str
    code_verifier: str = field(repr=False)


class Metadata(msgspec.Struct, frozen=True):
    """What is used of the provider's description of itself (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)

    @property
    def auth_method(self) -> str:
        is_basic = "client_secret_basic" in self.token_endpoint_auth_methods_supported
        return "client_secret_basic" if is_basic else "client_secret_post"


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Answers are read whole, up to a size, and as they were sent: one that is compressed would be of any size."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["Accept-Encoding"] = "identity"
        response = await super().handle_async_request(request)
        try:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ProviderUnavailable("its answer is compressed")
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise ProviderUnavailable(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        finally:
            await response.aclose()
        headers = {"Content-Type": response.headers.get("Content-Type", "")}
        return httpx2.Response(response.status_code, headers=headers, content=bytes(content))


class ProviderClient:
    """One for a process and a configuration. What it keeps are the provider's description and its keys."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._tls = ssl.create_default_context()
        self._metadata: Metadata | None = None
        self._metadata_at = 0.0
        self._keys: KeySet | None = None
        self._keys_at = 0.0
        self._refetched_at = -REFETCH_SECONDS
        self._away_until = 0.0

    async def begin(self, *, redirect_uri: str, max_age_seconds: int | None) -> Beginning:
        """Where to lead the browser. With ``max_age_seconds`` the person shows the provider again who they are.

        Raises:
            ProviderUnavailable: see there.
        """
        state, nonce, code_verifier = generate_token(43), generate_token(43), generate_token(64)
        extra = {} if max_age_seconds is None else {"max_age": str(max_age_seconds)}
        async with self._ask(redirect_uri=redirect_uri) as session:
            metadata = await self._get_metadata(session)
            url, _ = session.create_authorization_url(
                metadata.authorization_endpoint, state=state, code_verifier=code_verifier, nonce=nonce, **extra
            )
        return Beginning(url=url, state=state, nonce=nonce, code_verifier=code_verifier)

    async def finish(
        self, *, code: str, redirect_uri: str, nonce: str, code_verifier: str, max_age_seconds: int | None
    ) -> ProviderIdentity:
        """Whom the provider names for the code.

        Raises:
            ProviderUnavailable: see there.
            SignOnRefused: the provider does not take the code, or its ID token is not good.
        """
        async with self._ask(redirect_uri=redirect_uri) as session:
            metadata = await self._get_metadata(session)
            session.token_endpoint_auth_method = metadata.auth_method
            try:
                answer = await session.fetch_token(
                    metadata.token_endpoint, grant_type="authorization_code", code=code, code_verifier=code_verifier
                )
            except AuthlibBaseError as error:
                logger.info("The provider did not take a code: %s", type(error).__name__)
                raise SignOnRefused(Refusal.CODE_REFUSED) from error
            except ValueError as error:
                raise ProviderUnavailable("what it answered for a code is no JSON") from error
            expected = {"client_id": self._provider.client_id, "nonce": nonce, "max_age": max_age_seconds}
            claims = await self._verify(session, metadata, answer=answer, expected=expected)
        identity = read_identity(claims=claims, provider=self._provider)
        if identity is None:
            raise SignOnRefused(Refusal.TOKEN_INVALID)
        return identity

    @asynccontextmanager
    async def _ask(self, *, redirect_uri: str) -> AsyncIterator[Any]:
        """A client for one page's requests, with their failures told as one."""
        if time.monotonic() < self._away_until:
            raise ProviderUnavailable("it was away just now")
        provider = self._provider
        session = AsyncOAuth2Client(
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            scope=" ".join(provider.scopes),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            transport=BoundedTransport(verify=self._tls),
            timeout=TIMEOUT,
            follow_redirects=False,
        )
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS), session:
                yield session
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ProviderUnavailable) as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            if isinstance(error, ProviderUnavailable):
                raise
            raise ProviderUnavailable(type(error).__name__) from error

    async def _get_metadata(self, session: Any) -> Metadata:
        if self._metadata is None or time.monotonic() - self._metadata_at > CACHE_SECONDS:
            url = f"{self._provider.issuer.rstrip('/')}/.well-known/openid-configuration"
            self._metadata = self._check_metadata(await self._get(session, url))
            self._metadata_at = time.monotonic()
        return self._metadata

    def _check_metadata(self, content: bytes) -> Metadata:
        try:
            metadata = msgspec.json.decode(content, type=Metadata)
        except msgspec.MsgspecError as error:
            raise ProviderUnavailable("its description is not one") from error
        if metadata.issuer != self._provider.issuer:
            raise ProviderUnavailable("its description is another issuer's")
        for url in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
            if not is_safe_url(url, allows_loopback=self._provider.is_loopback):
                raise ProviderUnavailable("its description leads to what is not HTTPS")
        return metadata

    async def _get(self, session: Any, url: str) -> bytes:
        response = await session.request("GET", url, withhold_token=True, headers={"Accept": "application/json"})
        if response.status_code != httpx2.codes.OK:
            raise ProviderUnavailable(f"it answered {response.status_code}")
        content: bytes = response.content
        return content

    async def _get_keys(self, session: Any, metadata: Metadata) -> KeySet:
        if self._keys is None or time.monotonic() - self._keys_at > CACHE_SECONDS:
            self._keys_at = time.monotonic()
            try:
                self._keys = KeySet.import_key_set(msgspec.json.decode(await self._get(session, metadata.jwks_uri)))
            except (msgspec.MsgspecError, JoseError, ValueError, KeyError, TypeError) as error:
                raise ProviderUnavailable("its keys are none") from error
        return self._keys

    async def _verify(
        self, session: Any, metadata: Metadata, *, answer: dict[str, Any], expected: dict[str, Any]
    ) -> dict[str, Any]:
        """The claims of the answer's ID token, once everything about it is right.

        Raises:
            SignOnRefused: something is not.
        """
        text = answer.get("id_token")
        if not isinstance(text, str):
            raise SignOnRefused(Refusal.TOKEN_INVALID)
        try:
            token = await self._check_signature(session, metadata, text)
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": self._provider.issuer},
                    "aud": {"essential": True, "value": self._provider.client_id},
                    "nonce": {"essential": True},
                },
                {**expected, "access_token": answer.get("access_token")},
            )
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, AuthlibBaseError, ValueError, TypeError, AttributeError, RecursionError) as error:
            logger.info("An ID token was refused: %s", type(error).__name__)
            raise SignOnRefused(Refusal.TOKEN_INVALID) from error
        return dict(claims)

    async def _check_signature(self, session: Any, metadata: Metadata, text: str) -> jwt.Token:
        registry = JWSRegistry(algorithms=[self._provider.signing_algorithm], strict_check_header=False)
        try:
            return jwt.decode(text, await self._get_keys(session, metadata), registry=registry)
        except InvalidKeyIdError:
            if time.monotonic() - self._refetched_at < REFETCH_SECONDS:
                raise
        # The provider has new keys.
        self._refetched_at, self._keys = time.monotonic(), None
        return jwt.decode(text, await self._get_keys(session, metadata), registry=registry)

"""What this process was started with and must show nowhere, and the redactor that knows it.

Used by the supervisor too, which loads neither Django nor the settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from protocol.domain.redaction import Redactor

SECRET_VARIABLES: Final = (
    "MCP_SECRET_KEY",
    "MCP_MASTER_KEY",
    "MCP_OIDC_CLIENT_SECRET",
    "DATABASE_URL",
    "REDIS_URL",
    "CELERY_BROKER_URL",
)


def make_redactor(values: Iterable[str | None]) -> Redactor:
    """A redactor that knows the secrets in these values of secret variables."""
    return Redactor(secret for value in values if value for secret in _find_secrets(value.strip()))


def make_environment_redactor(environ: Mapping[str, str]) -> Redactor:
    """A redactor that knows what secret variables of the environment say."""
    return make_redactor(environ.get(name) for name in SECRET_VARIABLES)


def _find_secrets(value: str) -> Iterator[str]:
    if "://" not in value:
        # Two master keys, while one is changed for the other.
        yield from value.replace(",", " ").split()
        return
    try:
        password = urlsplit(value).password
    except ValueError:
        # A URL that is none: what stands before its last @ may be one.
        password = value.rpartition("@")[0].rpartition(":")[2]
    if password:
        yield from {password, unquote(password)}

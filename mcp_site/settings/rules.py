"""What the variables of the environment must be together, and what takes more than a bound to say of one.

Each raises ``ValueError`` with one line that names the variable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mcp_site.settings.values import is_address, is_service_url
from mcp_site.settings.variables import name_variable
from security.domain.openid import is_issuer, split_required_claim
from security.domain.port_ranges import make_pool

if TYPE_CHECKING:
    from mcp_site.settings.environment import Environment

POSTGRESQL_SCHEMES: Final = frozenset({"postgres", "postgresql"})
REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})


def check_transport(environment: Environment) -> None:
    """Raise ``ValueError``, which names the variable, where they do not fit together."""
    if (environment.tls_cert is None) != (environment.tls_key is None):
        missing = "MCP_TLS_KEY" if environment.tls_key is None else "MCP_TLS_CERT"
        raise ValueError(f"{missing}: MCP_TLS_CERT and MCP_TLS_KEY go together")
    for name, path in (("MCP_TLS_CERT", environment.tls_cert), ("MCP_TLS_KEY", environment.tls_key)):
        if path is not None and not path.is_file():
            raise ValueError(f"{name}: there is no file {path}")
    if environment.bind != "localhost" and not is_address(environment.bind):
        raise ValueError(f"MCP_BIND: expected an IP address or localhost, not {environment.bind!r}")
    if environment.debug and not environment.is_loopback:
        raise ValueError("MCP_DEBUG: debug pages are for loopback only; unset it or MCP_BIND")
    if environment.failpoints and not environment.is_loopback:
        raise ValueError("MCP_FAILPOINTS: failpoints are for tests on loopback only; unset it or MCP_BIND")


def check_ports(environment: Environment) -> None:
    """Raise ``ValueError``, which names the variable, where they do not fit together."""
    for name, ranges in (
        ("MCP_PORT_RANGES", environment.port_ranges),
        ("MCP_RESERVED_PORTS", environment.reserved_ports),
    ):
        try:
            make_pool(ranges=ranges, reserved=())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if environment.port_lease_seconds > environment.max_port_lease_seconds:
        raise ValueError("MCP_PORT_LEASE_SECONDS: must not be above MCP_MAX_PORT_LEASE_SECONDS")


def check_urls(environment: Environment) -> None:
    """Raise ``ValueError``, which names the variable, where they do not fit together."""
    for field, schemes in (("database_url", POSTGRESQL_SCHEMES), ("redis_url", REDIS_SCHEMES)):
        url = getattr(environment, field)
        if url is not None and not is_service_url(url, schemes=schemes):
            expected = " or ".join(f"{scheme}://" for scheme in sorted(schemes))
            raise ValueError(f"{name_variable(field)}: expected a URL that begins with {expected}")
    if environment.celery_broker_url is not None and "://" not in environment.celery_broker_url:
        raise ValueError("CELERY_BROKER_URL: expected a URL")


def check_openid(environment: Environment) -> None:
    """Raise ``ValueError``, which names the variable, where they do not fit together."""
    needed = ("oidc_issuer", "oidc_client_id", "oidc_client_secret")
    missing = [name_variable(field) for field in needed if not getattr(environment, field)]
    if missing and len(missing) < len(needed):
        together = ", ".join(name_variable(field) for field in needed)
        raise ValueError(f"{missing[0]}: {together} go together")
    if environment.oidc_issuer and not is_issuer(environment.oidc_issuer):
        raise ValueError("MCP_OIDC_ISSUER: expected an https:// URL without a query; http:// on loopback only")
    if "openid" not in environment.oidc_scopes:
        raise ValueError("MCP_OIDC_SCOPES: openid must be among them")
    if environment.oidc_required_claim:
        try:
            split_required_claim(environment.oidc_required_claim)
        except ValueError as error:
            raise ValueError(f"MCP_OIDC_REQUIRED_CLAIM: {error}") from None

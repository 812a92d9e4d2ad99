"""What must be so before anything is started: folders, transport, certificates, keys. Each refusal is one line."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Final

from django.db import DatabaseError, connections

from mcp_site.errors import StartRefused
from mcp_site.settings.environment import Environment
from mcp_site.settings.secrets import make_private_directory
from protocol.errors import Misconfigured
from security.services import check_keys

logger = logging.getLogger(__name__)

FOLDERS: Final = ("log", "run")


def prepare_data_dir(environment: Environment) -> None:
    """Make the data folder and those that `serve` itself writes to.

    Raises:
        StartRefused: it cannot be written to.
    """
    try:
        for name in FOLDERS:
            make_private_directory(environment.data_dir / name)
    except OSError as error:
        raise StartRefused(f"MCP_DATA_DIR: cannot write to {environment.data_dir}: {error.strerror}") from error


def check_transport(environment: Environment) -> None:
    """Refuse to offer plaintext beyond this machine unless that was asked for.

    Raises:
        StartRefused: see above, or the certificate or key cannot be used.
    """
    if environment.tls_cert is not None:
        make_tls_context(environment)
        return
    if environment.is_loopback or environment.trusted_proxies or environment.allow_insecure_transport:
        return
    raise StartRefused(
        f"MCP_BIND={environment.bind} is beyond loopback without TLS: set MCP_TLS_CERT and MCP_TLS_KEY, or "
        "MCP_TRUSTED_PROXIES to a proxy that ends TLS (or MCP_ALLOW_INSECURE_TRANSPORT=1 in a closed test network)"
    )


def check_broker_runs(path: Path | None) -> None:
    """Refuse to run a part alone over an embedded broker that nobody started.

    Raises:
        StartRefused: nothing listens on the socket. ``None``, for a broker elsewhere, is not looked at.
    """
    if path is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            raise StartRefused("no broker: start `manage.py serve` (or `make run`) first, or set REDIS_URL") from error


def check_master_key() -> None:
    """Refuse to run a part alone with another master key than the one that wrapped the database's keys.

    A database that does not answer yet is not this check's matter: each part waits for it in its own way.

    Raises:
        StartRefused: there is no master key, or it does not open the keys.
    """
    try:
        check_keys()
    except Misconfigured as error:
        raise StartRefused(error.message) from error
    except DatabaseError as error:
        logger.warning("the keys were not looked at: %s", str(error).strip().partition("\n")[0])
    finally:
        connections.close_all()


def make_tls_context(environment: Environment) -> ssl.SSLContext:
    """The server's TLS: 1.3 and nothing older.

    Raises:
        StartRefused: the certificate or key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(str(environment.tls_cert), str(environment.tls_key), password=_refuse_password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise StartRefused(f"MCP_TLS_CERT, MCP_TLS_KEY: cannot be used: {reason}") from error
    return context


def _refuse_password() -> str:
    """OpenSSL would ask for it on the terminal."""
    raise ValueError("the key is encrypted")

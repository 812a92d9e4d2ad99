"""The environment: every variable that the project knows, typed, bounded and described in one structure.

A new variable is a field of `Environment`, nothing else: its name, type, default, bounds and description are what
``reading.list_variables`` gives to the docs. Reading the process's own is ``reading``'s. Rules that need a socket or
the whole installation do not belong here (``mcp_site.serving.preflight``), nor does what Django makes of the values
(``mcp_site.settings.base``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from mcp_site.settings.rules import check_openid, check_ports, check_transport, check_urls
from mcp_site.settings.values import (
    Network,
    check_master_key,
    check_origins,
    is_loopback,
    parse_networks,
)
from mcp_site.settings.variables import PROJECT_ROOT, describe_variables, name_variable
from security.domain.openid import Provider
from security.domain.port_ranges import PortPool, make_pool

MASTER_KEY_FIELDS: Final = ("master_key", "master_key_file", "master_key_command")
"""Where the master key may come from: one of them."""

_SECRET: Final[dict[str, Any]] = {"secret": True}
_INTERNAL: Final[dict[str, Any]] = {"internal": True}


class Environment(msgspec.Struct, frozen=True, kw_only=True, rename=name_variable):
    """What the project reads from its environment. ``settings.MCP`` is the one instance."""

    data_dir: Annotated[Path, Meta(description="Where all state lies: database, secrets, logs, run files.")] = (
        PROJECT_ROOT / "var"
    )
    bind: Annotated[str, Meta(min_length=1, description="The address to listen on, an IP address or `localhost`.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on; 0 takes any free one.")] = 9000
    workspace: Annotated[
        Path | None, Meta(description="The folder that the file tools may see; without it they refuse.")
    ] = None
    http_allowed_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks (CIDR, comma-separated) that are not public and that `http.request` may reach all the"
            " same."
        ),
    ] = ()
    apps: Annotated[
        tuple[str, ...],
        Meta(description="Django apps of your own, comma-separated, by module name; each is importable by Python."),
    ] = ()

    tls_cert: Annotated[Path | None, Meta(description="PEM file of the certificate chain; with `MCP_TLS_KEY`.")] = None
    tls_key: Annotated[Path | None, Meta(description="PEM file of the private key; with `MCP_TLS_CERT`.")] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="Networks (CIDR, comma-separated) of proxies that end TLS and whose forwarded headers count."),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="Host names, comma-separated, under which the console is reached, besides loopback's."),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Web pages, comma-separated, as `https://app.example`, that may open a WebSocket, besides the"
            " server's own."
        ),
    ] = ()
    allow_insecure_transport: Annotated[
        bool, Meta(description="Accept plaintext from beyond loopback. For closed test networks only.")
    ] = False

    minimum_security_level: Annotated[
        Literal["low", "standard", "high", "critical"],
        Meta(
            description="The least security level of a message. `low` lets connections from this machine ask for it;"
            " from `high` on HTTP takes no commands."
        ),
    ] = "standard"

    secret_key: Annotated[str, Meta(min_length=50, description="Django's secret key.", extra=_SECRET)] = ""
    master_key: Annotated[
        str,
        Meta(
            description="The key that wraps the key ring: 32 bytes as base64url. While it is changed two, the new one"
            " first, with a comma between them.",
            extra=_SECRET,
        ),
    ] = ""
    master_key_file: Annotated[
        Path | None, Meta(description="A file with the master key, instead of `MCP_MASTER_KEY`.")
    ] = None
    master_key_command: Annotated[
        str | None,
        Meta(
            description="A command that prints the master key, instead of `MCP_MASTER_KEY`; run without a shell by each"
            " process that needs the key."
        ),
    ] = None

    debug: Annotated[bool, Meta(description="Django's debug pages; loopback only.")] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least level that is logged.")
    ] = "info"

    web_workers: Annotated[int, Meta(ge=1, le=64, description="Web processes.")] = 1
    task_workers: Annotated[int, Meta(ge=1, le=256, description="Processes that run tools.")] = 2
    database_threads: Annotated[
        Annotated[int, Meta(ge=1, le=64)] | None,
        Meta(
            description="Threads of a web process that talk to the database; without it 4, and 2 on SQLite, which"
            " lets one write at a time."
        ),
    ] = None

    max_message_size_bytes: Annotated[
        int, Meta(ge=1024, le=64 * 1024 * 1024, description="The largest WebSocket frame.")
    ] = 1_048_576
    max_in_flight: Annotated[int, Meta(ge=1, le=4096, description="Unanswered commands a session.")] = 64
    max_connections: Annotated[int, Meta(ge=1, le=100_000, description="WebSocket connections a web process.")] = 2000
    connections_per_account: Annotated[
        int, Meta(ge=1, le=100_000, description="Open WebSocket connections of one account, to all nodes together.")
    ] = 200
    connections_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Open WebSocket connections from one address: to each web process, and authenticated ones to"
            " all nodes together.",
        ),
    ] = 500
    connections_per_minute: Annotated[
        int, Meta(ge=1, le=100_000_000, description="WebSocket connections that one address opens, to all nodes.")
    ] = 1200
    requests_per_minute: Annotated[
        int,
        Meta(ge=1, le=100_000_000, description="Commands of one account, by whichever door, to all nodes together."),
    ] = 60_000
    sign_ins_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,
            description="Requests for tokens, and refused credentials on any door, from one address, to all nodes.",
        ),
    ] = 30
    handshake_timeout_seconds: Annotated[
        float, Meta(gt=0, le=300, description="From the connection to the client's handshake.")
    ] = 5
    authentication_timeout_seconds: Annotated[
        float, Meta(gt=0, le=300, description="From the handshake to a successful authentication.")
    ] = 10
    heartbeat_interval_seconds: Annotated[
        float, Meta(ge=0.1, le=3600, description="Two of them without any message close the connection.")
    ] = 20
    command_timeout_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="The deadline of a command that states no `timeout_ms`.")
    ] = 30
    drain_seconds: Annotated[
        float, Meta(ge=1, le=3600, description="How long a stop waits for what still runs before it cuts it off.")
    ] = 8

    require_second_factor: Annotated[
        Literal["none", "staff", "everyone"],
        Meta(
            description="Who must have a second factor to sign in with a password: `staff` is whoever may open the"
            " console. Whoever has one must show it in any case."
        ),
    ] = "none"
    webauthn: Annotated[
        bool, Meta(description="Offer passkeys (WebAuthn) as a second factor in the console; needs TLS or `localhost`.")
    ] = False
    oidc_issuer: Annotated[
        str,
        Meta(
            max_length=500,
            description="Let staff sign on to the console by the OpenID Connect provider of this issuer, an `https://`"
            " URL; with `MCP_OIDC_CLIENT_ID` and `MCP_OIDC_CLIENT_SECRET`.",
        ),
    ] = ""
    oidc_client_id: Annotated[str, Meta(description="What the provider calls this server.")] = ""
    oidc_client_secret: Annotated[str, Meta(description="What this server shows to the provider.", extra=_SECRET)] = ""
    oidc_name: Annotated[
        str, Meta(max_length=60, description="What the button calls the provider; without it its host name.")
    ] = ""
    oidc_scopes: Annotated[
        tuple[str, ...], Meta(description="What the provider is asked for, comma-separated; `openid` is among them.")
    ] = ("openid", "email", "profile")
    oidc_signing_algorithm: Annotated[
        Literal["RS256", "PS256", "ES256", "ES384"],
        Meta(description="What the provider signs ID tokens with; no other is taken, whatever a token says."),
    ] = "RS256"
    oidc_account_claim: Annotated[
        str,
        Meta(
            max_length=100,
            description="By which claim an account is found at the first sign-on: `email`, which the provider must have"
            " verified, is the account's; any other is its username; `none`: an operator links accounts.",
        ),
    ] = "email"
    oidc_required_claim: Annotated[
        str,
        Meta(
            max_length=300,
            description="A claim without which nobody is let in, with its value or one of its values, as"
            " `groups=operators`.",
        ),
    ] = ""
    oidc_second_factor_values: Annotated[
        tuple[str, ...],
        Meta(
            description="Values of the claims `amr` or `acr`, comma-separated, with which the second factor was shown"
            " to the provider, as `mfa`; without any, the server's own is asked for."
        ),
    ] = ()
    console_idle_minutes: Annotated[
        int, Meta(ge=1, le=10_080, description="How long somebody stays signed in to the console who does nothing.")
    ] = 60
    console_session_hours: Annotated[
        int, Meta(ge=1, le=720, description="How long somebody stays signed in to the console at most.")
    ] = 12

    access_token_minutes: Annotated[int, Meta(ge=1, le=720, description="How long an access token lasts.")] = 15
    refresh_token_days: Annotated[
        int, Meta(ge=1, le=365, description="How long a refresh token lasts that is not used; its use makes a new one.")
    ] = 14

    node_name: Annotated[
        str,
        Meta(max_length=200, description="What this machine is called among the nodes; without it its host name."),
    ] = ""
    port_ranges: Annotated[
        tuple[str, ...],
        Meta(
            description="Ports that are leased, as ranges, comma-separated. Keep them out of the range from which the"
            " operating system takes ports by itself."
        ),
    ] = ("20000-20999",)
    reserved_ports: Annotated[
        tuple[str, ...],
        Meta(description="Of these, ports that are never leased, as ranges. `MCP_PORT` is never leased."),
    ] = ()
    port_leases_per_account: Annotated[
        int, Meta(ge=1, le=65_535, description="Ports that an account may hold at once, besides those of its runs.")
    ] = 32
    port_lease_seconds: Annotated[
        float, Meta(ge=1, le=2_592_000, description="How long a port is leased when no `ttl_ms` is stated.")
    ] = 600
    max_port_lease_seconds: Annotated[
        float, Meta(ge=1, le=2_592_000, description="The longest `ttl_ms` of a port's lease, in seconds.")
    ] = 86_400
    port_drain_seconds: Annotated[
        float,
        Meta(ge=0, le=3600, description="How long after its lease a port may be in use before it is in quarantine."),
    ] = 30
    port_quarantine_seconds: Annotated[
        float, Meta(ge=1, le=2_592_000, description="How long a port is leased to nobody after something else held it.")
    ] = 300
    key_warning_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="The age at which the console and the log begin to ask for a key of the ring to be replaced; 0:"
            " never.",
        ),
    ] = 365

    default_tool_timeout_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="How long a tool may run when it states no timeout itself.")
    ] = 30
    max_tool_timeout_seconds: Annotated[
        float, Meta(gt=0, le=86_400, description="The longest timeout that a tool may state.")
    ] = 600
    worker_lease_seconds: Annotated[
        float, Meta(ge=1, le=600, description="How long a worker is taken to live after it last said so.")
    ] = 15
    execution_retention_days: Annotated[
        int, Meta(ge=1, le=36_500, description="How long a run that has ended is kept.")
    ] = 365
    failpoints: Annotated[
        bool, Meta(description="For tests: processes kill themselves at armed points.", extra=_INTERNAL)
    ] = False
    key_wait_seconds: Annotated[
        float,
        Meta(ge=0.5, le=10, description="For tests: how long a rotation waits for every process.", extra=_INTERNAL),
    ] = 10
    max_output_size_bytes: Annotated[
        int, Meta(ge=1024, le=64 * 1024 * 1024, description="The largest output of a tool, as JSON.")
    ] = 1_048_576

    database_url: Annotated[
        str | None,
        Meta(description="`postgresql://…`; without it SQLite in the data folder.", extra=_SECRET),
    ] = None
    redis_url: Annotated[
        str | None,
        Meta(
            description="`redis://…`, `rediss://…` or `unix://…`; without it an embedded Valkey on a private socket.",
            extra=_SECRET,
        ),
    ] = None
    celery_broker_url: Annotated[
        str | None, Meta(description="Celery's broker where it is not the server of `REDIS_URL`.", extra=_SECRET)
    ] = None

    supervisor_pid: Annotated[
        int, Meta(ge=0, description="Set by `serve` for its children, which end with it.", extra=_INTERNAL)
    ] = 0

    def __post_init__(self) -> None:
        check_transport(self)
        parse_networks(self.trusted_proxies, name="MCP_TRUSTED_PROXIES")
        parse_networks(self.http_allowed_networks, name="MCP_HTTP_ALLOWED_NETWORKS")
        check_origins(self.allowed_origins, name="MCP_ALLOWED_ORIGINS")
        check_urls(self)
        check_master_key(self.master_key, sources=[name_variable(f) for f in MASTER_KEY_FIELDS if getattr(self, f)])
        check_ports(self)
        check_openid(self)
        if self.default_tool_timeout_seconds > self.max_tool_timeout_seconds:
            raise ValueError("MCP_DEFAULT_TOOL_TIMEOUT_SECONDS: must not be above MCP_MAX_TOOL_TIMEOUT_SECONDS")

    def __repr__(self) -> str:
        secret = {variable.field for variable in describe_variables(Environment) if variable.is_secret}
        shown = (
            f"{field}={'***' if field in secret and getattr(self, field) else repr(getattr(self, field))}"
            for field in self.__struct_fields__
        )
        return f"Environment({', '.join(shown)})"

    @property
    def is_embedded(self) -> bool:
        """Whether all services are the embedded ones, so that secrets may be generated."""
        return self.database_url is None and self.redis_url is None and self.celery_broker_url is None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.bind)

    @property
    def http_networks(self) -> tuple[Network, ...]:
        """``http_allowed_networks`` as networks."""
        return parse_networks(self.http_allowed_networks, name="MCP_HTTP_ALLOWED_NETWORKS")

    @property
    def openid_provider(self) -> Provider | None:
        """The provider that staff may sign on by; ``None``: there is none."""
        if not self.oidc_issuer:
            return None
        return Provider(
            issuer=self.oidc_issuer,
            client_id=self.oidc_client_id,
            client_secret=self.oidc_client_secret,
            name=self.oidc_name or str(urlsplit(self.oidc_issuer).hostname),
            scopes=self.oidc_scopes,
            signing_algorithm=self.oidc_signing_algorithm,
            account_claim=self.oidc_account_claim,
            required_claim=self.oidc_required_claim,
            second_factor_values=self.oidc_second_factor_values,
        )

    @property
    def port_pool(self) -> PortPool:
        """The ports that are leased: ``port_ranges`` without ``reserved_ports`` and the server's own."""
        own = (str(self.port),) if self.port else ()
        return make_pool(ranges=self.port_ranges, reserved=(*self.reserved_ports, *own))

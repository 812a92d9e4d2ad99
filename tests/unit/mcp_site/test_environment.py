"""What the environment may say, and the line that names what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mcp_site.errors import BadEnvironment
from mcp_site.settings.environment import Environment
from mcp_site.settings.reading import find_unknown_names, list_variables, parse_environment

URL = "postgresql://user:a-password@db.example/mcp"


def test_an_empty_environment_has_the_documented_defaults() -> None:
    environment = parse_environment({})
    assert environment == Environment()
    assert (environment.bind, environment.port, environment.workspace) == ("127.0.0.1", 9000, None)
    assert environment.is_embedded
    assert environment.is_loopback


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("MCP_DATA_DIR", "/srv/mcp", "data_dir", Path("/srv/mcp")),
        ("MCP_PORT", "0", "port", 0),
        ("MCP_PORT", " 8443 ", "port", 8443),
        ("MCP_BIND", "::1", "bind", "::1"),
        ("MCP_WORKSPACE", "/srv/files", "workspace", Path("/srv/files")),
        ("MCP_TRUSTED_PROXIES", "10.0.0.0/8, ::1", "trusted_proxies", ("10.0.0.0/8", "::1")),
        ("MCP_HTTP_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8", "http_allowed_networks", ("10.0.0.0/8", "fd00::/8")),
        ("MCP_ALLOWED_HOSTS", "mcp.example,", "allowed_hosts", ("mcp.example",)),
        (
            "MCP_ALLOWED_ORIGINS",
            "https://app.example,http://[::1]:8",
            "allowed_origins",
            ("https://app.example", "http://[::1]:8"),
        ),
        ("MCP_DEBUG", "true", "debug", True),
        ("MCP_DEBUG", "0", "debug", False),
        ("MCP_LOG_LEVEL", "debug", "log_level", "debug"),
        ("MCP_DRAIN_SECONDS", "2.5", "drain_seconds", 2.5),
        ("DATABASE_URL", URL, "database_url", URL),
        ("REDIS_URL", "unix:///run/redis.sock", "redis_url", "unix:///run/redis.sock"),
        ("REDIS_URL", "redis://cache.example:6379/1", "redis_url", "redis://cache.example:6379/1"),
    ],
)
def test_a_good_value_is_taken(name: str, text: str, field: str, value: object) -> None:
    assert getattr(parse_environment({name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MCP_PORT", "many"),
        ("MCP_PORT", "65536"),
        ("MCP_PORT", "-1"),
        ("MCP_PORT", "80.5"),
        ("MCP_BIND", "not an address"),
        ("MCP_TRUSTED_PROXIES", "10.0.0.0/8,nonsense"),
        ("MCP_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("MCP_HTTP_ALLOWED_NETWORKS", "10.0.0.1/8"),
        ("MCP_HTTP_ALLOWED_NETWORKS", "intranet.example"),
        ("MCP_ALLOWED_ORIGINS", "app.example"),
        ("MCP_ALLOWED_ORIGINS", "https://app.example/"),
        ("MCP_ALLOWED_ORIGINS", "https://App.example"),
        ("MCP_ALLOWED_ORIGINS", "https://somebody@app.example"),
        ("MCP_ALLOWED_ORIGINS", "null"),
        ("MCP_DEBUG", "perhaps"),
        ("MCP_LOG_LEVEL", "loud"),
        ("MCP_WEB_WORKERS", "0"),
        ("MCP_TASK_WORKERS", "1000"),
        ("MCP_MAX_MESSAGE_SIZE_BYTES", "10"),
        ("MCP_HANDSHAKE_TIMEOUT_SECONDS", "0"),
        ("MCP_DRAIN_SECONDS", "nan"),
        ("MCP_SECRET_KEY", "short-and-secret"),
        ("MCP_MASTER_KEY", "secret-but-no-key"),
        ("MCP_TLS_CERT", "/nowhere/cert.pem"),
        ("DATABASE_URL", "mysql://user:a-password@db.example/mcp"),
        ("DATABASE_URL", "postgresql://"),
        ("REDIS_URL", "http://cache.example"),
        ("REDIS_URL", "redis://cache.example:port"),
        ("CELERY_BROKER_URL", "cache.example"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(name: str, text: str) -> None:
    with pytest.raises(BadEnvironment) as refused:
        parse_environment({name: text})
    line = str(refused.value)
    assert "\n" not in line
    assert name in line
    assert "a-password" not in line
    assert "secret" not in line


def test_values_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    for values, name in (
        ({"MCP_TLS_CERT": str(certificate)}, "MCP_TLS_KEY"),
        ({"MCP_TLS_KEY": str(certificate)}, "MCP_TLS_CERT"),
        ({"MCP_MAX_TOOL_TIMEOUT_SECONDS": "10"}, "MCP_DEFAULT_TOOL_TIMEOUT_SECONDS"),
        ({"MCP_DEBUG": "1", "MCP_BIND": "192.0.2.1"}, "MCP_DEBUG"),
    ):
        with pytest.raises(BadEnvironment, match=name):
            parse_environment(values)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("MCP_PROT", "MCP_PORT"),
        ("MCP_DATADIR", "MCP_DATA_DIR"),
        ("MCP_TASK_WORKER", "MCP_TASK_WORKERS"),
        ("MCP_ALOWED_HOSTS", "MCP_ALLOWED_HOSTS"),
        ("MCP_API_KEYS", "MCP_API_KEY"),
    ],
)
def test_a_near_miss_of_a_known_name_is_refused(written: str, meant: str) -> None:
    with pytest.raises(BadEnvironment) as refused:
        parse_environment({written: "1"})
    assert written in str(refused.value)
    assert meant in str(refused.value)


def test_other_unknown_names_are_only_warned_of_and_clients_names_are_known() -> None:
    values = {"MCP_FROBNICATE": "1", "MCP_URL": "ws://x/", "MCP_API_KEY": "mcp_x", "PATH": "/bin"}
    assert parse_environment(values) == Environment()
    assert find_unknown_names(values) == ["MCP_FROBNICATE"]


def test_no_secret_is_in_the_structures_text() -> None:
    secret = "s3cr3t-" * 10
    environment = parse_environment({"MCP_SECRET_KEY": secret, "DATABASE_URL": URL})
    assert secret not in repr(environment)
    assert "a-password" not in f"{environment}"


def test_every_variable_is_described_for_the_docs() -> None:
    variables = {variable.name: variable for variable in list_variables()}
    assert len(variables) == len(msgspec.structs.fields(Environment))
    assert all(variable.description and variable.type for variable in variables.values())
    assert variables["MCP_PORT"].bounds == "at least 0, at most 65535"
    assert variables["MCP_PORT"].default == "9000"
    assert variables["MCP_DATA_DIR"].default == "var"
    assert variables["MCP_SECRET_KEY"].is_secret
    assert variables["MCP_SUPERVISOR_PID"].is_internal

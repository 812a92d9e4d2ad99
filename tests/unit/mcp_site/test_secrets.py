"""Secrets that the first embedded start makes."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_site.errors import BadEnvironment
from mcp_site.settings.environment import Environment
from mcp_site.settings.reading import parse_environment
from mcp_site.settings.secrets import fill_in_secrets, generate_secret_key
from security.domain.master_keys import generate_master_key, parse_master_keys


def make_environment(data_dir: Path, **values: str) -> Environment:
    return parse_environment({"MCP_DATA_DIR": str(data_dir), **values})


def test_the_first_start_makes_them_and_the_next_reads_them(tmp_path: Path) -> None:
    first = fill_in_secrets(make_environment(tmp_path / "var"))
    assert len(first.secret_key) >= 50
    assert first.master_key_file is not None
    assert len(parse_master_keys(first.master_key_file.read_text())) == 1
    assert fill_in_secrets(make_environment(tmp_path / "var")) == first


def test_only_their_owner_can_read_them(tmp_path: Path) -> None:
    fill_in_secrets(make_environment(tmp_path))
    directory = tmp_path / "secrets"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    (directory / "secret_key").chmod(0o644)
    with pytest.raises(BadEnvironment, match="0600"):
        fill_in_secrets(make_environment(tmp_path))


def test_starts_at_the_same_time_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        keys = list(threads.map(lambda _: fill_in_secrets(make_environment(tmp_path)).secret_key, range(64)))
    assert len(set(keys)) == 1
    assert {file.name for file in (tmp_path / "secrets").iterdir()} == {"secret_key", "master_key"}


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_with_external_services_they_are_demanded(tmp_path: Path, variable: str) -> None:
    services = {"DATABASE_URL": "postgresql://db.example/mcp", "REDIS_URL": "redis://cache.example"}
    with pytest.raises(BadEnvironment, match="MCP_SECRET_KEY and MCP_MASTER_KEY"):
        fill_in_secrets(make_environment(tmp_path, **{variable: services[variable]}))
    assert not (tmp_path / "secrets").exists()
    given = {"MCP_SECRET_KEY": generate_secret_key(), "MCP_MASTER_KEY": generate_master_key()}
    environment = make_environment(tmp_path, **services, **given)
    assert fill_in_secrets(environment) == environment


def test_a_damaged_secret_and_an_unusable_folder_are_one_line(tmp_path: Path) -> None:
    fill_in_secrets(make_environment(tmp_path / "var"))
    (tmp_path / "var" / "secrets" / "secret_key").write_bytes(b"\xff")
    with pytest.raises(BadEnvironment, match="damaged"):
        fill_in_secrets(make_environment(tmp_path / "var"))
    (tmp_path / "file").touch()
    with pytest.raises(BadEnvironment, match="MCP_DATA_DIR"):
        fill_in_secrets(make_environment(tmp_path / "file"))

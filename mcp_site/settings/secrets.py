"""Secrets of an embedded installation: generated once into ``<data_dir>/secrets/``, read ever after.

With external services they come from the environment instead, so that every node has the same ones. The key ring is
kept in the database; only the master key, which wraps it, is here.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from mcp_site.errors import BadEnvironment
from mcp_site.settings.environment import MASTER_KEY_FIELDS, Environment
from mcp_site.settings.variables import name_variable
from security.domain.master_keys import generate_master_key

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600


def generate_secret_key() -> str:
    """A secret key for Django."""
    return secrets.token_urlsafe(64)


def fill_in_secrets(environment: Environment) -> Environment:
    """The environment with every secret set: its own, else the data folder's, which are made where they are missing.

    Raises:
        BadEnvironment: external services are configured and a secret is not given, or the folder does not serve.
    """
    needs_secret_key = not environment.secret_key
    needs_master_key = not any(getattr(environment, field) for field in MASTER_KEY_FIELDS)
    if not needs_secret_key and not needs_master_key:
        return environment
    if not environment.is_embedded:
        missing = {"secret_key": needs_secret_key, "master_key": needs_master_key}
        names = " and ".join(name_variable(field) for field, is_missing in missing.items() if is_missing)
        raise BadEnvironment(f"{names}: must be set when DATABASE_URL, REDIS_URL or CELERY_BROKER_URL is")
    directory = environment.data_dir / "secrets"
    try:
        make_private_directory(directory)
        if needs_secret_key:
            secret_key = read_or_create_secret(directory / "secret_key", generate=generate_secret_key)
            environment = msgspec.structs.replace(environment, secret_key=secret_key)
        if needs_master_key:
            path = directory / "master_key"
            read_or_create_secret(path, generate=generate_master_key)
            environment = msgspec.structs.replace(environment, master_key_file=path)
    except OSError as error:
        raise BadEnvironment(f"MCP_DATA_DIR: cannot write to {environment.data_dir}: {error.strerror}") from error
    except ValueError as error:
        raise BadEnvironment(f"{directory}: a secret in it is damaged; restore it from a backup") from error
    return environment


def make_private_directory(path: Path) -> None:
    """Make the folder, and the one above it where that is missing; only their owner can open them."""
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    if stat.S_IMODE(path.stat().st_mode) != DIRECTORY_MODE:
        path.chmod(DIRECTORY_MODE)


def read_or_create_secret(path: Path, *, generate: Callable[[], str]) -> str:
    """The file's text; a missing file is made first. If several processes do so at once, all read the winner's."""
    if not path.exists():
        _create(path, text=generate())
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise BadEnvironment(f"{path}: others can read it; set its mode to 0600")
    return path.read_text(encoding="ascii").strip()


def _create(path: Path, *, text: str) -> None:
    """Written whole under another name and linked: no reader sees half a file, no writer replaces one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()

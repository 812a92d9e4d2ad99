"""Secrets of an embedded installation: generated once into ``<data_dir>/secrets/``, read ever after.

With external services they come from the environment instead, so that every node has the same ones. Keys that are kept
in the database do not belong here.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from mcp_site.errors import BadEnvironment
from mcp_site.settings.environment import Environment
from mcp_site.settings.variables import name_variable

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600


def generate_secret_key() -> str:
    """A secret key for Django."""
    return secrets.token_urlsafe(64)


def generate_identity_key() -> str:
    """An Ed25519 seed, base64url without padding."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()


GENERATORS: Final[dict[str, Callable[[], str]]] = {
    "secret_key": generate_secret_key,
    "identity_key": generate_identity_key,
}


def fill_in_secrets(environment: Environment) -> Environment:
    """The environment with every secret set: its own, else the data folder's, which are made where they are missing.

    Raises:
        BadEnvironment: external services are configured and a secret is not given, or the folder does not serve.
    """
    missing = [field for field in GENERATORS if not getattr(environment, field)]
    if not missing:
        return environment
    if not environment.is_embedded:
        names = " and ".join(name_variable(field) for field in missing)
        raise BadEnvironment(f"{names}: must be set when DATABASE_URL, REDIS_URL or CELERY_BROKER_URL is")
    directory = environment.data_dir / "secrets"
    try:
        make_private_directory(directory)
        found = {field: read_or_create_secret(directory / field, generate=GENERATORS[field]) for field in missing}
        return msgspec.structs.replace(environment, **found)
    except OSError as error:
        raise BadEnvironment(f"MCP_DATA_DIR: cannot write to {environment.data_dir}: {error.strerror}") from error
    except ValueError as error:
        raise BadEnvironment(f"{directory}: a secret in it is damaged; delete it to have a new one made") from error


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
        raise BadEnvironment(f"{path}: others can read it; set its mode to 0600, or delete it to have a new one made")
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

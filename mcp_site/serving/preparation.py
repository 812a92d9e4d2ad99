"""Bringing the database to what the code needs before any process starts: tables, keys, first accounts, tools."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from mcp_site.errors import StartRefused
from mcp_site.serving.parts import PartOptions
from mcp_site.serving.preflight import prepare_data_dir
from mcp_site.settings.environment import Environment
from protocol.errors import Misconfigured
from security.selectors import get_identity_fingerprint
from security.services import ensure_first_accounts, ensure_first_keys, synchronise_builtin_roles
from tools.services import synchronise_tools

logger = logging.getLogger(__name__)

FIRST_RUN: Final = "first-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a prepared database says of itself."""

    first_run_dir: Path | None
    """The folder with the first accounts' secrets, where this call made them."""
    identity_fingerprint: str


def run(options: PartOptions) -> int:
    """The part of its own, for installations that start the others alone."""
    prepare_data_dir(options.environment)
    prepared = prepare_database(options.environment)
    if prepared.first_run_dir is not None:
        logger.info(
            "made the first accounts; their secrets lie in %s: delete them when you have them", prepared.first_run_dir
        )
    logger.info("identity key %s", prepared.identity_fingerprint)
    return 0


def prepare_database(environment: Environment) -> Prepared:
    """Migrate, make the first keys and accounts, bring roles and tools to what the code says.

    Safe to be cut off and run again.

    Raises:
        StartRefused: the database cannot be reached or written to, or the master key does not open its keys.
    """
    folder = environment.data_dir / FIRST_RUN
    try:
        if _has_pending_migrations():
            call_command("migrate", interactive=False, verbosity=0)
        ensure_first_keys()
        synchronise_builtin_roles()
        first_accounts = ensure_first_accounts(first_run_dir=folder)
        synchronise_tools()
        fingerprint = get_identity_fingerprint()
    except Misconfigured as error:
        raise StartRefused(error.message) from error
    except DatabaseError as error:
        reason = str(error).strip().partition("\n")[0]
        raise StartRefused(f"the database cannot be used: {reason}") from error
    except OSError as error:
        raise StartRefused(f"MCP_DATA_DIR: cannot write to {environment.data_dir}: {error.strerror}") from error
    finally:
        connections.close_all()
    return Prepared(first_run_dir=folder if first_accounts is not None else None, identity_fingerprint=fingerprint)


def _has_pending_migrations() -> bool:
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))

"""Bringing the database to what the code needs before any process starts: tables, first accounts, registered tools."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from mcp_site.errors import StartRefused
from mcp_site.serving.parts import PartOptions
from mcp_site.serving.preflight import prepare_data_dir
from mcp_site.settings.environment import Environment
from security.services import ensure_first_accounts
from tools.services import synchronise_tools

logger = logging.getLogger(__name__)

FIRST_RUN: Final = "first-run"


def run(options: PartOptions) -> int:
    """The part of its own, for installations that start the others alone."""
    prepare_data_dir(options.environment)
    folder = prepare_database(options.environment)
    if folder is not None:
        logger.info("made the first accounts; their secrets lie in %s: delete them when you have them", folder)
    return 0


def prepare_database(environment: Environment) -> Path | None:
    """Migrate, make the first accounts, register the code's tools. Safe to be cut off anywhere and run again.

    Returns:
        The folder with the first accounts' secrets where this call made them, else ``None``.

    Raises:
        StartRefused: the database cannot be reached or written to.
    """
    folder = environment.data_dir / FIRST_RUN
    try:
        if _has_pending_migrations():
            call_command("migrate", interactive=False, verbosity=0)
        first_accounts = ensure_first_accounts(first_run_dir=folder)
        synchronise_tools()
    except DatabaseError as error:
        reason = str(error).strip().partition("\n")[0]
        raise StartRefused(f"the database cannot be used: {reason}") from error
    except OSError as error:
        raise StartRefused(f"MCP_DATA_DIR: cannot write to {environment.data_dir}: {error.strerror}") from error
    finally:
        connections.close_all()
    return folder if first_accounts is not None else None


def _has_pending_migrations() -> bool:
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))

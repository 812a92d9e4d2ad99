"""The accounts of the first start, and the two files that hand their secrets over.

What belongs here is the order that survives a kill at any point: the files are on the disk before the accounts are
committed. So either both are there, or no account is and the next start writes the files anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from security.models import Account
from security.selectors import has_accounts
from security.services.accounts import create_account, generate_password
from security.services.api_keys import issue_api_key
from security.services.private_files import make_private_folder, write_private_file

OPERATOR_PASSWORD_FILE: Final = "operator-password"  # noqa: S105  # a file's name
AGENT_API_KEY_FILE: Final = "agent-api-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAccounts:
    """What the first start made, for showing once."""

    operator_password: str = field(repr=False)
    agent_api_key: str = field(repr=False)


def ensure_first_accounts(*, first_run_dir: Path) -> FirstAccounts | None:
    """Make the person ``operator`` and the service ``agent`` with a key, unless any account exists.

    Their secrets are left in ``first_run_dir`` (0700) as ``operator-password`` and ``agent-api-key`` (0600), one line
    each.

    Returns:
        The secrets, or ``None`` if there are accounts already.
    """
    if has_accounts():
        return None
    try:
        with transaction.atomic(durable=True):
            return _create_first_accounts(first_run_dir)
    except (IntegrityError, ValidationError):
        # Another process was faster; it holds the names, so that this one never came to write the files.
        if has_accounts():
            return None
        raise


def _create_first_accounts(first_run_dir: Path) -> FirstAccounts:
    password = generate_password()
    create_account(
        username="operator",
        display_name="Operator",
        password=password,
        is_staff=True,
        is_superuser=True,
        roles=["operator"],
    )
    agent = create_account(username="agent", display_name="Agent", kind=Account.Kind.SERVICE, roles=["agent"])
    issued = issue_api_key(account=agent, name="first run")
    make_private_folder(first_run_dir)
    write_private_file(first_run_dir / OPERATOR_PASSWORD_FILE, password)
    write_private_file(first_run_dir / AGENT_API_KEY_FILE, issued.secret)
    return FirstAccounts(operator_password=password, agent_api_key=issued.secret)

"""Every write of the security app, by what is written; callers import from here.

What belongs in the modules is transactions and their order. Decisions are ``domain``'s, reads ``selectors``'.
"""

from security.services.accounts import (
    create_account,
    generate_password,
    remove_password,
    reset_password,
    save_account,
    set_password,
)
from security.services.api_keys import IssuedKey, issue_api_key, rename_api_key, revoke_api_key
from security.services.authentication import ApiKeyAuthenticator
from security.services.first_run import FirstAccounts, ensure_first_accounts
from security.services.roles import delete_grant, delete_role, save_grant, save_role

__all__ = [
    "ApiKeyAuthenticator",
    "FirstAccounts",
    "IssuedKey",
    "create_account",
    "delete_grant",
    "delete_role",
    "ensure_first_accounts",
    "generate_password",
    "issue_api_key",
    "remove_password",
    "rename_api_key",
    "reset_password",
    "revoke_api_key",
    "save_account",
    "save_grant",
    "save_role",
    "set_password",
]

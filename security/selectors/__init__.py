"""Reads of the security app, by what is read; importers take them from here.

What belongs here changes nothing. What it means that a key is expired or a grant matches is ``domain``'s.
"""

from security.selectors.access import (
    Explanation,
    KeyNotFound,
    RolesAndGrants,
    explain_access,
    get_account_principal,
    get_roles_and_grants,
    list_roles_and_grants,
)
from security.selectors.accounts import (
    count_recovery_codes,
    find_account_id,
    get_account,
    get_authenticator_app,
    has_accounts,
    has_authenticator_app,
    list_accounts_keyed_by,
    list_passkeys,
)
from security.selectors.audit import MAX_FOUND, MAX_SEARCHED, filter_audit_events_by_actor, search_audit_events
from security.selectors.command_keys import CommandKeys, find_command_key, get_command_keys, list_command_keys
from security.selectors.credentials import filter_api_keys, get_password_stamp, get_revocation_mark, has_standing
from security.selectors.identity import get_identity_fingerprint
from security.selectors.keys import list_keys
from security.selectors.limits import forget_rules, get_rules, get_used, read_rules, select_rules
from security.selectors.port_leases import (
    PortLeaseFilters,
    PortLeasePage,
    PortLeaseView,
    PortStatus,
    check_port,
    count_account_leases,
    describe_lease,
    get_port_lease,
    list_port_leases,
    list_recent_ports,
    list_taken_ports,
    may_act_on_lease,
    may_allocate_port,
    may_lift_quarantine,
)
from security.selectors.sessions import REVOKE_SESSIONS, may_revoke_session

__all__ = [
    "MAX_FOUND",
    "MAX_SEARCHED",
    "REVOKE_SESSIONS",
    "CommandKeys",
    "Explanation",
    "KeyNotFound",
    "PortLeaseFilters",
    "PortLeasePage",
    "PortLeaseView",
    "PortStatus",
    "RolesAndGrants",
    "check_port",
    "count_account_leases",
    "count_recovery_codes",
    "describe_lease",
    "explain_access",
    "filter_api_keys",
    "filter_audit_events_by_actor",
    "find_account_id",
    "find_command_key",
    "forget_rules",
    "get_account",
    "get_account_principal",
    "get_authenticator_app",
    "get_command_keys",
    "get_identity_fingerprint",
    "get_password_stamp",
    "get_port_lease",
    "get_revocation_mark",
    "get_roles_and_grants",
    "get_rules",
    "get_used",
    "has_accounts",
    "has_authenticator_app",
    "has_standing",
    "list_accounts_keyed_by",
    "list_command_keys",
    "list_keys",
    "list_passkeys",
    "list_port_leases",
    "list_recent_ports",
    "list_roles_and_grants",
    "list_taken_ports",
    "may_act_on_lease",
    "may_allocate_port",
    "may_lift_quarantine",
    "may_revoke_session",
    "read_rules",
    "search_audit_events",
    "select_rules",
]

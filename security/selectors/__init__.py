"""Reads of the security app, by what is read; importers take them from here.

What belongs here changes nothing. What it means that a key is expired or a grant matches is ``domain``'s.
"""

from security.selectors.access import (
    RolesAndGrants,
    get_account_principal,
    get_roles_and_grants,
    list_roles_and_grants,
)
from security.selectors.accounts import find_account_id, get_account, has_accounts, list_accounts_keyed_by
from security.selectors.address_rules import (
    RulesGuard,
    forget_address_rules,
    get_address_rules,
    get_last_known_address_rules,
    judge_with_rule,
    read_address_rules,
)
from security.selectors.audit import MAX_FOUND, MAX_SEARCHED, filter_audit_events_by_actor, search_audit_events
from security.selectors.credentials import filter_api_keys, get_password_stamp, get_revocation_mark, has_standing
from security.selectors.explanations import (
    MAX_EXPLAINED,
    Explanation,
    KeyNotFound,
    Question,
    QuestionInvalid,
    explain_access,
    get_api_key,
    list_allowed,
    make_question,
)
from security.selectors.identity import get_identity_fingerprint
from security.selectors.sessions import (
    REVOKE_SESSIONS,
    VIEW_SESSIONS,
    SessionPage,
    SessionView,
    describe_credentials,
    get_all_sessions_resource,
    get_session_resource,
    list_sessions,
    may_revoke_all_sessions,
    may_revoke_session,
)

__all__ = [
    "MAX_EXPLAINED",
    "MAX_FOUND",
    "MAX_SEARCHED",
    "REVOKE_SESSIONS",
    "VIEW_SESSIONS",
    "Explanation",
    "KeyNotFound",
    "Question",
    "QuestionInvalid",
    "RolesAndGrants",
    "RulesGuard",
    "SessionPage",
    "SessionView",
    "describe_credentials",
    "explain_access",
    "filter_api_keys",
    "filter_audit_events_by_actor",
    "find_account_id",
    "forget_address_rules",
    "get_account",
    "get_account_principal",
    "get_address_rules",
    "get_all_sessions_resource",
    "get_api_key",
    "get_identity_fingerprint",
    "get_last_known_address_rules",
    "get_password_stamp",
    "get_revocation_mark",
    "get_roles_and_grants",
    "get_session_resource",
    "has_accounts",
    "has_standing",
    "judge_with_rule",
    "list_accounts_keyed_by",
    "list_allowed",
    "list_roles_and_grants",
    "list_sessions",
    "make_question",
    "may_revoke_all_sessions",
    "may_revoke_session",
    "read_address_rules",
    "search_audit_events",
]

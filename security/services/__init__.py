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
from security.services.addresses import delete_address_rule, disable_address_rules, refuse_lock_out, save_address_rule
from security.services.api_keys import (
    DEFAULT_OVERLAP,
    IssuedKey,
    issue_api_key,
    rename_api_key,
    revoke_api_key,
    rotate_api_key,
)
from security.services.authentication import CredentialsAuthenticator
from security.services.changes import (
    CHANGE_KINDS,
    MEMBERSHIP_ACTIONS,
    MEMBERSHIPS,
    load_stored,
    record_clearing,
    record_clearing_from_other_side,
    record_delete,
    record_membership,
    record_save,
)
from security.services.channels import IdentityKeyAgreer
from security.services.command_keys import check_public_key, register_command_key, revoke_command_key
from security.services.first_run import FirstAccounts, ensure_first_accounts
from security.services.key_making import check_keys, ensure_first_keys
from security.services.key_rotation import (
    advance_rotations,
    begin_rotation,
    list_unfinished,
    reseal_stragglers,
    warn_of_aged_keys,
)
from security.services.keyring import KeyringVault, get_keyring, get_waits
from security.services.limiting import SharedLimiter
from security.services.limits import LimitStanding, delete_limit, list_standings, purge_limit_usage, save_limit
from security.services.lockout import purge_login_failures
from security.services.master_key_rotation import NothingToRotate, Rewrapped, rotate_master_key
from security.services.passwords import check_first_factor, check_password, sign_in_to_console
from security.services.port_lease_ends import (
    drain_port_lease,
    end_execution_leases,
    end_session_leases,
    lift_quarantine,
    purge_port_leases,
    release_port_lease,
    settle_port_leases,
    sweep_port_leases,
)
from security.services.port_leases import (
    GrantedLease,
    LeasedPort,
    LeaseRequest,
    allocate_port,
    lease_port_for_execution,
    renew_port_lease,
)
from security.services.recording import SHOWN_FACTOR, SIGN_IN, SIGN_OUT, AuditRecorder, record_console
from security.services.refusals import record_refused_sign_in
from security.services.resealing import count_sealed
from security.services.revocation import move_revocation_mark
from security.services.roles import delete_grant, delete_role, save_grant, save_role, synchronise_builtin_roles
from security.services.sealing import BATCH, SEALED_WITHIN, find_audit_key, seal_events, sign_chain
from security.services.second_factors import (
    Enrolment,
    begin_enrolment,
    check_code,
    confirm_enrolment,
    get_enrolment,
    make_recovery_codes,
    remove_app,
    remove_passkey,
    reset_second_factor,
)
from security.services.sessions import (
    EndedSessions,
    end_sign_ins,
    revoke_all_sessions,
    revoke_session,
    revoke_token_family,
)
from security.services.sign_on import SignOnRefused, accept_identity, begin_attempt, link_account, unlink_account
from security.services.tokens import IssuedTokens, issue_tokens, purge_tokens, refresh_tokens, revoke_token

__all__ = [
    "BATCH",
    "CHANGE_KINDS",
    "DEFAULT_OVERLAP",
    "MEMBERSHIPS",
    "MEMBERSHIP_ACTIONS",
    "SEALED_WITHIN",
    "SHOWN_FACTOR",
    "SIGN_IN",
    "SIGN_OUT",
    "AuditRecorder",
    "CredentialsAuthenticator",
    "EndedSessions",
    "Enrolment",
    "FirstAccounts",
    "GrantedLease",
    "IdentityKeyAgreer",
    "IssuedKey",
    "IssuedTokens",
    "KeyringVault",
    "LeaseRequest",
    "LeasedPort",
    "LimitStanding",
    "NothingToRotate",
    "Rewrapped",
    "SharedLimiter",
    "SignOnRefused",
    "accept_identity",
    "advance_rotations",
    "allocate_port",
    "begin_attempt",
    "begin_enrolment",
    "begin_rotation",
    "check_code",
    "check_first_factor",
    "check_keys",
    "check_password",
    "check_public_key",
    "confirm_enrolment",
    "count_sealed",
    "create_account",
    "delete_address_rule",
    "delete_grant",
    "delete_limit",
    "delete_role",
    "disable_address_rules",
    "drain_port_lease",
    "end_execution_leases",
    "end_session_leases",
    "end_sign_ins",
    "ensure_first_accounts",
    "ensure_first_keys",
    "find_audit_key",
    "generate_password",
    "get_enrolment",
    "get_keyring",
    "get_waits",
    "issue_api_key",
    "issue_tokens",
    "lease_port_for_execution",
    "lift_quarantine",
    "link_account",
    "list_standings",
    "list_unfinished",
    "load_stored",
    "make_recovery_codes",
    "move_revocation_mark",
    "purge_limit_usage",
    "purge_login_failures",
    "purge_port_leases",
    "purge_tokens",
    "record_clearing",
    "record_clearing_from_other_side",
    "record_console",
    "record_delete",
    "record_membership",
    "record_refused_sign_in",
    "record_save",
    "refresh_tokens",
    "refuse_lock_out",
    "register_command_key",
    "release_port_lease",
    "remove_app",
    "remove_passkey",
    "remove_password",
    "rename_api_key",
    "renew_port_lease",
    "reseal_stragglers",
    "reset_password",
    "reset_second_factor",
    "revoke_all_sessions",
    "revoke_api_key",
    "revoke_command_key",
    "revoke_session",
    "revoke_token",
    "revoke_token_family",
    "rotate_api_key",
    "rotate_master_key",
    "save_account",
    "save_address_rule",
    "save_grant",
    "save_limit",
    "save_role",
    "seal_events",
    "set_password",
    "settle_port_leases",
    "sign_chain",
    "sign_in_to_console",
    "sweep_port_leases",
    "synchronise_builtin_roles",
    "unlink_account",
    "warn_of_aged_keys",
]

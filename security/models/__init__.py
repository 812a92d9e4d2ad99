"""What is stored, by what it is about, and the constraints that always hold; importers take it from here.

Writes go through ``services``, reads through ``selectors``; what a pattern or a key means is ``domain``'s.
"""

from security.models.accounts import Account, AccountManager, Grant, Role
from security.models.address_rules import AddressRule
from security.models.audit import (
    AppendOnly,
    AppendOnlyQuerySet,
    AuditChain,
    AuditEvent,
    AuditHead,
    AuditSeal,
    UnsealedEvent,
)
from security.models.command_keys import CommandKey, CommandKeyKept
from security.models.credentials import ApiKey, IssuedToken, LoginFailure
from security.models.keys import EncryptionKey
from security.models.limits import Limit, LimitUsage
from security.models.port_leases import MAX_HOST_LENGTH, MAX_PURPOSE_LENGTH, PortLease, PortQuarantine
from security.models.provider_links import MAX_ISSUER_LENGTH, ProviderLink
from security.models.revocation import RevocationMark
from security.models.second_factors import AuthenticatorApp, Passkey, RecoveryCode
from security.models.validators import (
    MAX_KEY_NETWORKS,
    MAX_SCOPES,
    validate_action_pattern,
    validate_conditions,
    validate_networks,
    validate_resource_pattern,
    validate_scopes,
)

__all__ = [
    "MAX_HOST_LENGTH",
    "MAX_ISSUER_LENGTH",
    "MAX_KEY_NETWORKS",
    "MAX_PURPOSE_LENGTH",
    "MAX_SCOPES",
    "Account",
    "AccountManager",
    "AddressRule",
    "ApiKey",
    "AppendOnly",
    "AppendOnlyQuerySet",
    "AuditChain",
    "AuditEvent",
    "AuditHead",
    "AuditSeal",
    "AuthenticatorApp",
    "CommandKey",
    "CommandKeyKept",
    "EncryptionKey",
    "Grant",
    "IssuedToken",
    "Limit",
    "LimitUsage",
    "LoginFailure",
    "Passkey",
    "PortLease",
    "PortQuarantine",
    "ProviderLink",
    "RecoveryCode",
    "RevocationMark",
    "Role",
    "UnsealedEvent",
    "validate_action_pattern",
    "validate_conditions",
    "validate_networks",
    "validate_resource_pattern",
    "validate_scopes",
]

"""The console's pages of accounts, roles, API keys, leased ports and the audit record.

Edges: they parse, call a service and render. Whoever changes accounts or roles can give itself anything, so only
superusers do; others see them where they have Django's ``view`` permission. Each module registers its pages when it is
imported.
"""

from __future__ import annotations

from security.admin.accounts import AccountAdmin
from security.admin.address_rules import AddressRuleAdmin
from security.admin.audit import AuditEventAdmin
from security.admin.command_keys import CommandKeyAdmin
from security.admin.key_ring import EncryptionKeyAdmin
from security.admin.keys import ApiKeyAdmin
from security.admin.limits import LimitAdmin
from security.admin.login import ConsoleLoginForm
from security.admin.own_password import OwnPasswordForm
from security.admin.permissions import get_actor, get_principal
from security.admin.port_leases import PortLeaseAdmin, PortQuarantineAdmin
from security.admin.roles import GroupAdmin, RoleAdmin
from security.admin.second_factors import list_urls
from security.admin.sessions import ClosableSessionAdmin
from security.admin.tokens import IssuedTokenAdmin

__all__ = [
    "AccountAdmin",
    "AddressRuleAdmin",
    "ApiKeyAdmin",
    "AuditEventAdmin",
    "ClosableSessionAdmin",
    "CommandKeyAdmin",
    "ConsoleLoginForm",
    "EncryptionKeyAdmin",
    "GroupAdmin",
    "IssuedTokenAdmin",
    "LimitAdmin",
    "OwnPasswordForm",
    "PortLeaseAdmin",
    "PortQuarantineAdmin",
    "RoleAdmin",
    "get_actor",
    "get_principal",
    "list_urls",
]

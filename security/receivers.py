"""What follows from a change elsewhere: rights that changed reach open connections, a session's end frees its ports.

Whatever changes an account, a role or a grant through the ORM moves the mark that open connections are watched by.

Signals, and not only the services: Django's forms save an account's roles themselves, a shell or another app writes
past the services, and a change that was forgotten here would be one that connections never hear of. ``update`` of a
queryset sends no signal: the services that use it move the mark themselves.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import receiver

from protocol.signals import session_ended
from security import selectors, services
from security.models import Account, AddressRule, ApiKey, Grant, Limit, Role

HARMLESS_FIELDS: Final = frozenset({"last_login", "last_used_at", "last_used_from", "name", "display_name", "email"})
"""Of accounts and keys: a change of these alone changes nobody's rights. Each sign-in to the console is one."""
M2M_CHANGES: Final = frozenset({"post_add", "post_remove", "post_clear"})


@receiver([post_save], sender=Account, dispatch_uid="security.mark.account")
@receiver([post_save], sender=ApiKey, dispatch_uid="security.mark.key")
@receiver([post_save], sender=Role, dispatch_uid="security.mark.role")
def mark_change(*, created: bool, update_fields: frozenset[str] | None = None, **_: Any) -> None:
    """A changed account, key or role; a new one has no connection yet."""
    if created or (update_fields is not None and update_fields <= HARMLESS_FIELDS):
        return
    services.move_revocation_mark()


@receiver([post_save, post_delete], sender=Grant, dispatch_uid="security.mark.grant")
@receiver([post_save, post_delete], sender=AddressRule, dispatch_uid="security.mark.address_rule")
@receiver([post_delete], sender=Role, dispatch_uid="security.mark.role_deleted")
@receiver([post_delete], sender=ApiKey, dispatch_uid="security.mark.key_deleted")
@receiver([post_delete], sender=Account, dispatch_uid="security.mark.account_deleted")
def mark_change_of_rights(**_: Any) -> None:
    """A grant or an address rule that came, changed or went, or something whose going takes rights away."""
    services.move_revocation_mark()


@receiver(m2m_changed, sender=Account.roles.through, dispatch_uid="security.mark.membership")
def mark_membership(*, action: str, pk_set: set[Any] | None = None, **_: Any) -> None:
    """Roles given to an account or taken from it, from either side."""
    if action in M2M_CHANGES and (pk_set is None or pk_set):
        services.move_revocation_mark()


@receiver([post_save, post_delete], sender=Limit, dispatch_uid="security.mark.limit")
def mark_change_of_limits(**_: Any) -> None:
    """A limit that came, changed or went."""
    selectors.forget_rules()
    services.move_revocation_mark()


@receiver(session_ended, dispatch_uid="security.port_leases.session_ended")
def free_ports(*, session_id: uuid.UUID, **_: Any) -> None:
    """A session that ended holds no ports."""
    services.end_session_leases(session_id=session_id)

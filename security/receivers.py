"""What follows from a change elsewhere: rights that changed reach open connections, a session's end frees its ports.

What changes who may do what is put on record; so are a person's signing in to the console and out of it.

Whatever changes an account, a role or a grant through the ORM moves the mark that open connections are watched by.

Signals, and not only the services: Django's forms save an account's roles themselves, a shell or another app writes
past the services, and a change that was forgotten here would be one that connections never hear of. ``update`` of a
queryset sends no signal: the services that use it move the mark themselves.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.apps import AppConfig
from django.contrib.auth import BACKEND_SESSION_KEY
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_migrate, post_save, pre_save
from django.dispatch import receiver
from django.http import HttpRequest

from protocol.domain.addresses import read_address
from protocol.signals import session_ended
from security import selectors, services
from security.models import Account, AddressRule, ApiKey, Grant, Limit, Role

HARMLESS_FIELDS: Final = frozenset({"last_login", "last_used_at", "last_used_from", "name", "display_name", "email"})
"""Of accounts and keys: a change of these alone changes nobody's rights. Each sign-in to the console is one."""
SIGN_IN_METHODS: Final = {
    "security.backends.PasswordBackend": "password",
    "security.backends.ProviderBackend": "openid_connect",
}
"""What the record calls the ways into the console."""
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


@receiver(post_migrate, dispatch_uid="security.builtin_roles")
def build_roles(*, sender: AppConfig, using: str, plan: Sequence[Any] | None = None, **_: Any) -> None:
    """``migrate`` is done: the built-in roles are what the code says, unless the tables are those of another version.

    ``flush`` says so too, without a plan; what it leaves is empty.
    """
    if sender.label != Role._meta.app_label or plan is None:
        return
    executor = MigrationExecutor(connections[using])
    if not executor.migration_plan(executor.loader.graph.leaf_nodes(sender.label)):
        services.synchronise_builtin_roles()


@receiver(session_ended, dispatch_uid="security.port_leases.session_ended")
def free_ports(*, session_id: uuid.UUID, **_: Any) -> None:
    """A session that ended holds no ports."""
    services.end_session_leases(session_id=session_id)


# What is put on record


@receiver(pre_save, dispatch_uid="security.record.before")
def remember_stored(
    *, sender: type[Model], instance: Any, raw: bool, update_fields: frozenset[str] | None = None, **_: Any
) -> None:
    """What a recorded row was, for the event of its change."""
    if sender in services.CHANGE_KINDS and not raw and not instance._state.adding:  # noqa: SLF001  # Django's documented API
        instance.stored_before = services.load_stored(instance, update_fields=update_fields)


@receiver(post_save, dispatch_uid="security.record.save")
def record_save(
    *,
    sender: type[Model],
    instance: Any,
    created: bool,
    raw: bool,
    update_fields: frozenset[str] | None = None,
    **_: Any,
) -> None:
    """A recorded row was made or changed."""
    if sender in services.CHANGE_KINDS and not raw:
        before = instance.__dict__.pop("stored_before", None)
        services.record_save(instance, before=before, created=created, update_fields=update_fields)


@receiver(post_delete, dispatch_uid="security.record.delete")
def record_delete(*, sender: type[Model], instance: Any, **_: Any) -> None:
    """A recorded row went."""
    if sender in services.CHANGE_KINDS:
        services.record_delete(instance)


def record_membership(
    *, sender: type[Model], instance: Any, action: str, reverse: bool, model: type[Model], pk_set: Any, **_: Any
) -> None:
    """Rows were put into a recorded row's relation or taken from it, from whichever side."""
    relation = services.MEMBERSHIPS[sender]
    if action == "pre_clear":
        if reverse:
            services.record_clearing_from_other_side(instance, through=sender, model=model)
        else:
            services.record_clearing(instance, relation=relation)
    elif action in services.MEMBERSHIP_ACTIONS and pk_set:
        if reverse:
            for owner in model._base_manager.filter(pk__in=pk_set):  # noqa: SLF001  # Django's documented API
                services.record_membership(
                    owner, relation=relation, action=action, model=type(instance), keys=[instance.pk]
                )
        else:
            services.record_membership(instance, relation=relation, action=action, model=model, keys=pk_set)


for through in services.MEMBERSHIPS:
    m2m_changed.connect(record_membership, sender=through, dispatch_uid=f"security.record.{through.__name__}")


@receiver(user_logged_in, dispatch_uid="security.record.sign_in")
def record_sign_in(*, user: Any, request: HttpRequest | None = None, **_: Any) -> None:
    """A person signed in to the console."""
    backend = None if request is None else request.session.get(BACKEND_SESSION_KEY)
    services.record_console(
        account=user,
        action=services.SIGN_IN,
        remote_address=get_address(request),
        method=SIGN_IN_METHODS.get(str(backend)),
        second_factor=None if request is None else request.session.get(services.SHOWN_FACTOR),
    )


@receiver(user_logged_out, dispatch_uid="security.record.sign_out")
def record_sign_out(*, user: Any, request: HttpRequest | None = None, **_: Any) -> None:
    """A person signed out of the console; nobody where the session had ended before."""
    if user is not None:
        services.record_console(account=user, action=services.SIGN_OUT, remote_address=get_address(request))


def get_address(request: HttpRequest | None) -> str | None:
    """The address that the request came from."""
    return None if request is None else read_address(request.META.get("REMOTE_ADDR"))

"""Authenticator apps' secrets as a store that key rotation goes through: by hand they are sealed, by no field."""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction

from security.domain.keyring import KeyUnknown, NotOpened
from security.models import AuthenticatorApp
from security.services.resealing import Batch
from security.services.second_factors import open_secret, seal_secret

logger = logging.getLogger(__name__)


class AppSecretStore:
    """``resealing.SealedStore`` of all apps."""

    name = "security.AuthenticatorApp.sealed_secret"

    def count(self, *, key_id: str) -> int:
        return AuthenticatorApp.objects.filter(key_id=key_id).count()

    def reseal(self, *, key_id: str, after: Any, limit: int) -> Batch:
        rows = AuthenticatorApp.objects.filter(key_id=key_id).order_by("pk")
        found = list(rows[:limit] if after is None else rows.filter(pk__gt=after)[:limit])
        secrets = [(app, secret) for app in found if (secret := _open(app)) is not None]
        resealed = 0
        with transaction.atomic():
            for app, secret in secrets:
                sealed = seal_secret(app_id=app.pk, secret=secret)
                # An app's secret is never another: where the key is still this one, so is what was read.
                resealed += AuthenticatorApp.objects.filter(pk=app.pk, key_id=key_id).update(
                    key_id=sealed.key_id, sealed_secret=sealed.data
                )
        return Batch(
            last=found[-1].pk if len(found) == limit else None,
            resealed=resealed,
            unreadable=len(found) - len(secrets),
        )


def _open(app: AuthenticatorApp) -> bytes | None:
    try:
        return open_secret(app)
    except (KeyUnknown, NotOpened):
        logger.error("The secret of authenticator app %s cannot be opened under key %s", app.pk, app.key_id)  # noqa: TRY400  # where it failed says nothing, which row everything
        return None

"""Django's ways to a person: by name and password, for the console and whoever else calls ``authenticate``; and by a
provider's word, of which only the sessions are looked at here.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.backends import BaseBackend, ModelBackend
from django.http import HttpRequest

from protocol.domain.addresses import read_address
from protocol.errors import AuthenticationFailed, SecurityError
from security import services
from security.models import Account


class PasswordBackend(ModelBackend):
    """Django's own with our check of passwords, which counts the wrong ones with those of the sockets."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        *,
        code: str | None = None,
        **_: Any,
    ) -> Account | None:
        """The person; ``None`` where name and password are not a person's, or its second factor's ``code`` is wrong.

        A refusal is on record by then.

        Raises:
            LockedOut: there were too many wrong ones.
            IpDenied: they are right, and the account is not let in from there.
            MCPError: the refusal cannot be recorded.
        """
        if username is None or password is None:
            return None
        address = None if request is None else read_address(request.META.get("REMOTE_ADDR"))
        try:
            return services.sign_in_to_console(username=username, password=password, code=code, remote_address=address)
        except SecurityError as error:
            told = services.record_refused_sign_in(error, remote_address=address, subject="password")
            if not isinstance(told, AuthenticationFailed):
                raise told from error
            return None

    async def aauthenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        *,
        code: str | None = None,
        **_: Any,
    ) -> Account | None:
        # Django's own asks no counter.
        return await sync_to_async(self.authenticate)(request, username, password, code=code)


class ProviderBackend(BaseBackend):
    """Whom a session is that was opened by a provider's word (``services.sign_on``); it lets nobody in itself.

    What such a session stands on is looked at with each request: the provider is the configured one, the account is
    linked with a subject of its, active, and staff.
    """

    def get_user(self, user_id: Any) -> Account | None:
        return Account.objects.filter(
            pk=user_id, is_active=True, is_staff=True, provider_links__issuer=settings.MCP.oidc_issuer
        ).first()

    async def aget_user(self, user_id: Any) -> Account | None:
        return await sync_to_async(self.get_user)(user_id)

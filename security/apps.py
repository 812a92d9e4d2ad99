"""The security app: binds the kernel's ports to its services when Django is ready."""

from django.apps import AppConfig


class SecurityConfig(AppConfig):
    name = "security"
    label = "security"
    verbose_name = "Security"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from protocol import ports
        from security import receivers  # noqa: F401  # importing it connects them
        from security.domain.authorization import PolicyAuthorizer
        from security.domain.command_signatures import RegisteredKeysVerifier
        from security.services import (
            AuditRecorder,
            CredentialsAuthenticator,
            IdentityKeyAgreer,
            KeyringVault,
            SharedLimiter,
        )

        ports.bind(
            authenticator=CredentialsAuthenticator(),
            authorizer=PolicyAuthorizer(),
            limiter=SharedLimiter(),
            key_agreer=IdentityKeyAgreer(),
            recorder=AuditRecorder(),
            signature_verifier=RegisteredKeysVerifier(),
            vault=KeyringVault(),
        )

"""The security app: binds the kernel's ports to its services when Django is ready."""

from django.apps import AppConfig

RESOURCE_KINDS = (
    ("session", "An open connection, by its id, or `all` of an account. Its account owns it.", "session:all"),
    ("token_family", "The tokens of one sign-in, by the family's id. Its account owns it.", "token_family:*"),
    ("port", "A port of the server's machine, by its number. Whoever leased it owns it.", "port:8080"),
)
"""Name, what it is and who owns one, an example."""


class SecurityConfig(AppConfig):
    name = "security"
    label = "security"
    verbose_name = "Security"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.utils import timezone

        from protocol import ports
        from security import receivers  # noqa: F401  # importing it connects them
        from security.domain.audit_actions import register_audit_actions
        from security.domain.authorization import PolicyAuthorizer
        from security.domain.command_signatures import RegisteredKeysVerifier
        from security.domain.recorded_actions import RECORDED_ACTIONS
        from security.domain.resources import ResourceKind, register_resource_kind
        from security.selectors import RulesGuard
        from security.services import (
            AuditRecorder,
            CredentialsAuthenticator,
            IdentityKeyAgreer,
            KeyringVault,
            SharedLimiter,
        )

        register_audit_actions(*RECORDED_ACTIONS)
        for name, summary, example in RESOURCE_KINDS:
            register_resource_kind(ResourceKind(name=name, summary=summary, example=example))
        ports.bind(
            authenticator=CredentialsAuthenticator(),
            authorizer=PolicyAuthorizer(clock=timezone.now),
            address_guard=RulesGuard(),
            limiter=SharedLimiter(),
            key_agreer=IdentityKeyAgreer(),
            recorder=AuditRecorder(),
            signature_verifier=RegisteredKeysVerifier(),
            vault=KeyringVault(),
        )

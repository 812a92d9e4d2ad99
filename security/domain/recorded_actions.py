"""What this app puts on record: one entry an action. The place to add one; the docs are made from it.

Tools' actions are in ``tools.domain.recorded_actions``.
"""

from __future__ import annotations

from typing import Final

from security.domain.audit_actions import AuditAction

_ACCOUNT_ID: Final = {"account_id": "whose it is"}
_ROW_ID: Final = {"id": "the row's id"}
_CHANGED: Final = {
    **_ROW_ID,
    "changed": "each changed field with what it was and what it is; of a secret only that it changed",
}
_FIELDS: Final = {**_ROW_ID, "fields": "the fields that are not empty; of a secret only that it is there"}
_ADDRESS: Final = {"address": "from where"}
_DOOR: Final = {"door": "`websocket`, `http` or `console`", **_ADDRESS}
_LEASE: Final = {"lease_id": "the lease's id", "host": "the machine", **_ACCOUNT_ID}
_KEY: Final = {
    "purpose": "what the key is for",
    "algorithm": "its algorithm",
    "master_key_id": "the master key that wraps it",
}
_FACTOR: Final = {"kind": "`authenticator app` or `passkey`"}
_SUBJECT: Final = {"issuer": "the provider", "subject": "whom the provider names so"}
_RULE: Final = {
    "effect": "`allow` or `deny`",
    "network": "the addresses",
    "account_id": "for which account only",
    "api_key_id": "for which API key only",
    "is_enabled": "whether it counts",
}
_LIMIT: Final = {
    "limit_id": "the limit's id",
    "is_enabled": "whether it counts",
    "scope": "whom it is about",
    "subject": "the account, key or role",
    "counted": "what is counted",
    "pattern": "of which commands or tools",
    "amount": "how many",
    "period": "in which time",
    "burst": "how many at once",
}


def _make_changes(kind: str, what: str, *relations: str) -> tuple[AuditAction, ...]:
    """What ``services.changes`` records of a model."""
    given = {name: f"those of its {name.replace('_', ' ')} that were `added` or `removed`" for name in relations}
    return (
        AuditAction(name=f"{kind}s.create", summary=f"{what} was made.", kinds=(kind,), data=_FIELDS),
        AuditAction(name=f"{kind}s.change", summary=f"{what} was changed.", kinds=(kind,), data={**_CHANGED, **given}),
        AuditAction(name=f"{kind}s.delete", summary=f"{what} was deleted.", kinds=(kind,), data=_ROW_ID),
    )


RECORDED_ACTIONS: Final = (
    # Who came, and who was refused
    AuditAction(
        name="accounts.authenticate",
        summary="Good credentials were shown: for each connection; with HTTP the first time that a process sees them "
        "from an address, then once an hour.",
        kinds=("session", "credential"),
        data={**_DOOR, "method": "what was shown: `api_key`, `token`, `password`"},
    ),
    AuditAction(
        name="console.sign_in",
        summary="A person signed in to the console; every step was right.",
        kinds=("account",),
        data={
            **_DOOR,
            "second_factor": "`code`, `passkey`, `set up` (just now), `the provider's`, or null where none was needed",
            "method": "`password` or `openid_connect`",
        },
    ),
    AuditAction(name="console.sign_out", summary="A person signed out of the console.", kinds=("account",), data=_DOOR),
    AuditAction(
        name="access.deny",
        summary="Something was refused. The outcome is the error's code; where several were counted together, the "
        "commonest. What is said not to exist is counted too: `security.access_denied` where it is there and may not "
        "be seen, the code that was told where it is not.",
        kinds=(),
        data={
            **_DOOR,
            "count": "how many refusals this event is of",
            "codes": "each code with its count, where there are several",
            "subjects": "what else was asked for, 8 at most",
            "addresses": "from where, if from several, 8 at most",
            "sources": "of how many sources, if of several",
            "action": "what the policy denied",
        },
    ),
    AuditAction(
        name="sessions.end",
        summary="A session ended with its connection: `closed`, or `lost` without a closing frame.",
        kinds=("session",),
        data={**_ACCOUNT_ID, "close_code": "the WebSocket's"},
    ),
    AuditAction(
        name="sessions.revoke",
        summary="A session, or all of an account, was ended by somebody.",
        kinds=("session",),
        data={
            **_ACCOUNT_ID,
            "token_family": "the tokens that were revoked with it",
            "sessions": "which were open",
            "session_count": "how many were open",
            "token_families": "how many sign-ins by token were revoked",
        },
    ),
    # Credentials
    AuditAction(
        name="tokens.issue",
        summary="A pair of tokens was issued for an API key or a password.",
        kinds=("token_family",),
        data={"jti": "the access token's id", "credential": "what was shown", **_ADDRESS},
    ),
    AuditAction(
        name="tokens.refresh",
        summary="A refresh token was used for the next pair.",
        kinds=("token_family",),
        data={"jti": "the used token's id", "kind": "`refresh`", "successor": "the new access token's id", **_ADDRESS},
    ),
    AuditAction(
        name="tokens.reuse",
        summary="A used refresh token came again; its family was revoked.",
        kinds=("token_family",),
        data={"jti": "the token's id", "kind": "`refresh`", **_ADDRESS},
    ),
    AuditAction(
        name="tokens.revoke",
        summary="The tokens of one sign-in were revoked.",
        kinds=("token_family",),
        data={"jti": "the token that was shown for it", "kind": "`access` or `refresh`", **_ADDRESS, **_ACCOUNT_ID},
    ),
    *_make_changes("api_key", "An API key"),
    AuditAction(
        name="api_keys.rotate",
        summary="An API key got a successor.",
        kinds=("api_key",),
        data={
            **_ROW_ID,
            **_ACCOUNT_ID,
            "successor": "the new key's id",
            "ends_at": "when the old one ends, or sooner by its own expiry",
        },
    ),
    AuditAction(
        name="api_keys.revoke", summary="An API key was revoked.", kinds=("api_key",), data={**_ROW_ID, **_ACCOUNT_ID}
    ),
    AuditAction(
        name="command_keys.register",
        summary="A public key was registered, to verify the account's signed commands by.",
        kinds=("command_key",),
        data={**_ACCOUNT_ID, "public_key": "the key, base64url"},
    ),
    AuditAction(
        name="command_keys.revoke",
        summary="A command key was revoked.",
        kinds=("command_key",),
        data=_ACCOUNT_ID,
    ),
    AuditAction(
        name="second_factors.add",
        summary="A second factor was set up.",
        kinds=("account",),
        data={**_ACCOUNT_ID, **_FACTOR},
    ),
    AuditAction(
        name="second_factors.remove",
        summary="A second factor was taken away.",
        kinds=("account",),
        data={**_ACCOUNT_ID, **_FACTOR},
    ),
    AuditAction(
        name="second_factors.reset",
        summary="All second factors and recovery codes were taken away, for new ones to be set up.",
        kinds=("account",),
        data=_ACCOUNT_ID,
    ),
    AuditAction(
        name="second_factors.use_recovery_code",
        summary="A recovery code was used.",
        kinds=("account",),
        data={**_ACCOUNT_ID, "left": "how many are left"},
    ),
    AuditAction(
        name="second_factors.make_recovery_codes",
        summary="New recovery codes replaced the old ones.",
        kinds=("account",),
        data=_ACCOUNT_ID,
    ),
    AuditAction(
        name="sign_on.link",
        summary="An account was linked with a subject of the OpenID Connect provider, at its first sign-on or by hand.",
        kinds=("account",),
        data={**_ACCOUNT_ID, **_SUBJECT},
    ),
    AuditAction(
        name="sign_on.unlink",
        summary="An account's link with a subject of the OpenID Connect provider was ended.",
        kinds=("account",),
        data={**_ACCOUNT_ID, **_SUBJECT},
    ),
    # Who may do what
    *_make_changes("account", "An account", "roles", "groups", "user_permissions"),
    *_make_changes("role", "A role"),
    *_make_changes("grant", "A grant of a role"),
    *_make_changes("group", "A group of the console", "permissions"),
    AuditAction(
        name="addresses.change",
        summary="An address rule was `added`, `changed`, `disabled` or `deleted`.",
        kinds=("address_rule",),
        data=_RULE,
    ),
    AuditAction(
        name="limits.change",
        summary="A limit was `added`, `changed` or `deleted`.",
        kinds=("limit",),
        data=_LIMIT,
    ),
    # The server's own keys
    AuditAction(name="keys.create", summary="The first key of a purpose was made.", kinds=("key",), data=_KEY),
    AuditAction(
        name="keys.publish",
        summary="A successor was made, and is published; or is to be used sooner than it was published for.",
        kinds=("key",),
        data=_KEY,
    ),
    AuditAction(name="keys.activate", summary="A key is the one in use from now on.", kinds=("key",), data=_KEY),
    AuditAction(name="keys.replace", summary="A key is not used for anything new.", kinds=("key",), data=_KEY),
    AuditAction(name="keys.retire", summary="Nothing needs the key any more.", kinds=("key",), data=_KEY),
    AuditAction(
        name="keys.rewrap",
        summary="The ring's keys were wrapped by another master key.",
        kinds=("master_key",),
        data={"keys": "how many", "from": "the master keys that wrapped them before"},
    ),
    # Ports
    AuditAction(
        name="ports.allocate",
        summary="A port was leased.",
        kinds=("port",),
        data={
            **_LEASE,
            "purpose": "what for",
            "holder_kind": "what holds it: the account, a session, a run",
            "holder_id": "which",
            "expires_at": "until when",
        },
    ),
    AuditAction(
        name="ports.renew",
        summary="A lease was prolonged.",
        kinds=("port",),
        data={"lease_id": "the lease's id", "host": "the machine", "expires_at": "until when"},
    ),
    AuditAction(
        name="ports.release",
        summary="A lease ended; the outcome says by what.",
        kinds=("port",),
        data=_LEASE,
    ),
    AuditAction(name="ports.drain", summary="A lease is being ended.", kinds=("port",), data=_LEASE),
    AuditAction(name="ports.expire", summary="A lease's time was over.", kinds=("port",), data=_LEASE),
    AuditAction(
        name="ports.quarantine",
        summary="A port is not leased for a while; the outcome says why.",
        kinds=("port",),
        data={"host": "the machine", "found": "what holds it", "until": "until when"},
    ),
    AuditAction(
        name="ports.lift",
        summary="A port's quarantine was ended by somebody.",
        kinds=("port",),
        data={"host": "the machine", "found": "what held it"},
    ),
)

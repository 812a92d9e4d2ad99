"""The table of errors: every row complete, every code the protocol's, and no two the same."""

from __future__ import annotations

import inspect

import pytest

from protocol.errors import InvalidMessage, MCPError, ProtocolError, get_error_table

CATEGORIES = {"protocol", "security", "context", "tool", "transport", "system"}
# protocol.md section 8.
CODES = {
    "protocol": "invalid_message unsupported_type invalid_payload invalid_arguments invalid_metadata message_too_large "
    "unknown_command unexpected_message version_unsupported feature_not_agreed duplicate_id batch_too_large cancelled",
    "security": "authentication_required authentication_failed token_expired token_revoked access_denied ip_denied "
    "security_level_too_low encryption_required decryption_failed signature_invalid replayed locked_out rate_limited",
    "context": "not_found already_exists version_conflict validation_failed locked lock_not_found fence_stale "
    "too_large inconsistent",
    "tool": "not_found unavailable invalid_input invalid_output execution_failed timeout cancelled rejected "
    "interrupted dependency_unresolved quarantined registration_invalid execution_not_found approval_not_found",
    "transport": "connection_lost frame_invalid port_unavailable port_invalid lease_not_found",
    "system": "internal unavailable overloaded timeout misconfigured storage_unavailable",
}
RETRYABLE = {
    "security.locked_out",
    "security.rate_limited",
    "context.locked",
    "tool.unavailable",
    "transport.connection_lost",
    "transport.port_unavailable",
    "system.unavailable",
    "system.overloaded",
    "system.timeout",
    "system.storage_unavailable",
}
PUBLISHED = {f"{category}.{reason}" for category, reasons in CODES.items() for reason in reasons.split()}


def list_classes(base: type[MCPError] = MCPError) -> list[type[MCPError]]:
    return [base, *(found for child in base.__subclasses__() for found in list_classes(child))]


def list_rows() -> list[type[MCPError]]:
    """The table, without what other tests may have put into it."""
    return [error for error in get_error_table().values() if not error.__module__.startswith("tests")]


@pytest.mark.parametrize("error", list_rows(), ids=lambda error: error.code)
def test_every_row_is_complete(error: type[MCPError]) -> None:
    assert error.category in CATEGORIES
    assert error.code.partition(".")[0] == error.category
    assert 400 <= error.http_status < 600
    assert error.retryable == (error.code in RETRYABLE)
    assert error.code in PUBLISHED, "the protocol's page has no such code"


@pytest.mark.parametrize("error", list_classes(), ids=lambda error: error.__qualname__)
def test_every_class_has_a_message_of_its_own(error: type[MCPError]) -> None:
    assert error.__dict__.get("__doc__"), "the docstring is the default message"
    message = inspect.getdoc(error) or ""
    assert message.partition("\n")[0].endswith(".")
    assert error("Other words.").message == "Other words."
    if "code" in error.__dict__:
        assert error().message == error.get_default_message() == message.partition("\n")[0]


def test_the_kernels_and_the_tools_codes_are_all_in_the_table() -> None:
    loaded = set(get_error_table())
    assert {"protocol.invalid_message", "security.access_denied", "system.internal"} <= loaded
    assert {"tool.not_found", "tool.timeout", "tool.execution_failed"} <= loaded


def test_a_code_that_is_taken_cannot_be_taken_again() -> None:
    with pytest.raises(TypeError, match="InvalidMessage"):
        type("Copy", (ProtocolError,), {"code": InvalidMessage.code, "__doc__": "A copy."})
    assert get_error_table()[InvalidMessage.code] is InvalidMessage


@pytest.mark.parametrize("code", ["tool.of_another_category", "no_category", "protocolx.reason", ""])
def test_a_code_is_of_its_category(code: str) -> None:
    with pytest.raises(TypeError):
        type("Wrong", (ProtocolError,), {"code": code, "__doc__": "Wrong."})
    assert code not in get_error_table()


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        get_error_table()["protocol.mine"] = InvalidMessage  # type: ignore[index]  # what is tested

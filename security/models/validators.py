"""What a stored pattern or scope must be, for the fields of several models; their meaning is ``domain.policy``'s."""

from __future__ import annotations

from typing import Final

from django.core.exceptions import ValidationError

from security.domain import policy

MAX_SCOPES: Final = 50


def validate_action_pattern(value: str) -> None:
    """Refuse what is not an action pattern."""
    try:
        policy.parse_action_pattern(value)
    except policy.PatternInvalid as error:
        raise ValidationError(str(error), code="pattern_invalid") from error


def validate_resource_pattern(value: str) -> None:
    """Refuse what is not a resource pattern."""
    try:
        policy.parse_resource_pattern(value)
    except policy.PatternInvalid as error:
        raise ValidationError(str(error), code="pattern_invalid") from error


def validate_scopes(value: object) -> None:
    """Refuse what is not a list of at most ``MAX_SCOPES`` action patterns."""
    if not isinstance(value, list) or len(value) > MAX_SCOPES or not all(isinstance(scope, str) for scope in value):
        raise ValidationError(f"Scopes are a list of at most {MAX_SCOPES} action patterns.", code="scopes_invalid")
    for scope in value:
        validate_action_pattern(scope)

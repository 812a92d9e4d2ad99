"""What a stored pattern or scope must be, for the fields of several models; their meaning is ``domain.policy``'s."""

from __future__ import annotations

from typing import Final

from django.core.exceptions import ValidationError

from security.domain import conditions, policy
from security.domain.addresses import NetworkInvalid, parse_network

MAX_SCOPES: Final = 50
MAX_KEY_NETWORKS: Final = 50


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


def validate_conditions(value: object) -> None:
    """Refuse what is not an object of conditions that this server knows."""
    try:
        conditions.check_conditions(value)
    except conditions.ConditionInvalid as error:
        raise ValidationError(str(error), code="conditions_invalid") from error


def validate_network(value: str) -> None:
    """Refuse what is not an address or a network."""
    try:
        parse_network(value)
    except NetworkInvalid as error:
        raise ValidationError(str(error), code="network_invalid") from error


def validate_networks(value: object) -> None:
    """Refuse what is not a list of at most ``MAX_KEY_NETWORKS`` networks."""
    if not isinstance(value, list) or len(value) > MAX_KEY_NETWORKS or not all(isinstance(text, str) for text in value):
        raise ValidationError(f"Networks are a list of at most {MAX_KEY_NETWORKS}.", code="networks_invalid")
    for text in value:
        validate_network(text)

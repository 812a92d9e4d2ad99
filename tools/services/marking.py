"""What an operator says of a tool beyond its definition: its labels, for grants, and the level that it demands.

Both are in the audit record. Whether somebody may say so is asked by the edge: it is the console's permission.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction

from protocol.ports import Principal, Resource
from security.domain.policy import is_label
from security.services import audit
from tools.models import LEVELS, Tool

MARK_TOOLS: Final = "tools.mark"
MAX_LABELS: Final = 20


def mark_tool(*, tool: Tool, labels: Sequence[str], minimum_level: str, principal: Principal, trace_id: str) -> bool:
    """Give the tool these labels and no others, and this demanded level, empty for none but its versions' own.

    Counts from the next call on, on every connection. ``False`` where it is so already.

    Raises:
        ValidationError: a text is no label, there are more than ``MAX_LABELS``, or it is no level.
    """
    if len(labels) > MAX_LABELS or not all(is_label(label) for label in labels):
        raise ValidationError(
            f"Labels are a-z, 0-9 and . _ -, begin with a letter or digit, and are {MAX_LABELS} at most.",
            code="labels_invalid",
        )
    if minimum_level not in LEVELS:
        raise ValidationError("This is no security level.", code="level_invalid")
    marked = sorted(set(labels))
    with transaction.atomic():
        row = Tool.objects.select_for_update().get(id=tool.id)
        if (row.labels, row.minimum_level) == (marked, minimum_level):
            return False
        Tool.objects.filter(id=tool.id).update(labels=marked, minimum_level=minimum_level)
        audit.record_event(
            action=MARK_TOOLS,
            principal=principal,
            resource=Resource(kind="tool", name=tool.name),
            outcome="marked",
            trace_id=trace_id,
            data={
                "labels": marked,
                "labels_before": row.labels,
                "minimum_level": minimum_level,
                "minimum_level_before": row.minimum_level,
            },
        )
    return True

"""What connections are watched by."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class RevocationMark(models.Model):
    """One row that every revocation and every change of grants moves on; processes with connections watch it."""

    ONLY_ID = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY_ID)
    value = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="security_mark_one_row")]

    def __str__(self) -> str:
        return str(self.value)

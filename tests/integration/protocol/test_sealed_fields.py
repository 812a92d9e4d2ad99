"""Sealed model fields, on a table of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, models
from django.db.models import F
from django.test.utils import isolate_apps

from protocol.sealed_fields import KeyIdField, Plain, SealedField
from security import services
from security.domain.key_states import KeyPurpose
from security.domain.keyring import NotOpened
from security.models import EncryptionKey
from security.services.keyring import get_keyring
from security.services.resealing import FieldStore

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def model() -> Iterator[Any]:
    with isolate_apps("protocol"):

        class Secret(models.Model):
            text = SealedField(key_id_field="text_key_id", allows_plain=True, null=True)
            text_key_id = KeyIdField()

            class Meta:
                app_label = "protocol"
                indexes = [models.Index(fields=["text_key_id", "id"], name="secret_key")]

    with connection.schema_editor() as editor:
        editor.create_model(Secret)
    yield Secret
    with connection.schema_editor() as editor:
        editor.delete_model(Secret)


def read_column(model: Any, pk: int) -> bytes:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT text FROM {model._meta.db_table} WHERE id = %s", [pk])  # its own name
        return bytes(cursor.fetchone()[0])


def test_a_value_is_sealed_in_the_column_and_opened_when_it_is_read(model: Any) -> None:
    row = model.objects.create(id=1, text=b"secret")
    assert b"secret" not in read_column(model, 1)
    found = model.objects.get()
    assert (row.text, found.text, found.text_key_id) == (b"secret", b"secret", get_keyring().get_sealing_id())
    found.text = b"other"
    found.save()
    assert model.objects.get().text == b"other"
    assert model._meta.get_field("text").check() == []


def test_it_opens_in_no_other_row(model: Any) -> None:
    model.objects.create(id=1, text=b"secret")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {model._meta.db_table} SET id = 2")  # its own name
    with pytest.raises(NotOpened):
        _ = model.objects.get().text


def test_a_plain_value_is_stored_as_it_is(model: Any) -> None:
    model.objects.create(id=1, text=Plain(b"open"))
    found = model.objects.get()
    assert (found.text, found.text_key_id, read_column(model, 1)) == (b"open", None, b"open")


def test_what_would_leave_a_half_or_store_a_plaintext_is_refused(model: Any) -> None:
    row = model.objects.create(id=1, text=b"secret")
    with pytest.raises(TypeError):
        model.objects.update(text=b"plain")
    with pytest.raises(ValueError):
        row.save(update_fields=["text"])
    with pytest.raises(ValueError):
        model.objects.create(text=b"no id yet")


def test_rotation_seals_it_anew(model: Any) -> None:
    for number in range(1, 6):
        model.objects.create(id=number, text=b"secret")
    model.objects.create(id=6, text=Plain(b"open"))
    old, store = get_keyring().get_sealing_id(), FieldStore(model._meta.get_field("text"))
    services.begin_rotation(purpose=KeyPurpose.AT_REST)
    EncryptionKey.objects.filter(state="pending").update(activates_at=F("created_at"))
    services.advance_rotations(seconds=1)
    after, resealed = None, 0
    while True:
        batch = store.reseal(key_id=old, after=after, limit=2)
        resealed, after = resealed + batch.resealed, batch.last
        if after is None:
            break
    assert (resealed, store.count(key_id=old), store.count(key_id=get_keyring().get_sealing_id())) == (5, 0, 5)
    assert [row.text for row in model.objects.order_by("id")] == [b"secret"] * 5 + [b"open"]

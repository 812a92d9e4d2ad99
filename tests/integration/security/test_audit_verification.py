"""Any single change of the stored chain, or of an export, is found and named."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from protocol.ports import Resource
from security import selectors, services
from security.domain import audit_chain
from security.domain.key_states import KeyPurpose
from security.models import AuditChain, AuditEvent, AuditHead, AuditSeal
from security.selectors import Verification
from security.services.audit import record_event
from security.services.keyring import get_keyring
from tests.audit_triggers import without_audit_triggers
from tests.keys import ensure_keys

pytestmark = pytest.mark.django_db
LENGTH = 7
HEADS_AT = (2, 4, 7)
EXAMPLE = Path(__file__).parents[3] / "examples" / "verify_audit_export.py"


@pytest.fixture(autouse=True)
def _chain() -> None:
    ensure_keys()
    for position in range(1, LENGTH + 1):
        record_event(
            action="execution.ended",
            resource=Resource(kind="execution", name=f"é{position}"),
            outcome="done",
            data={"code": "\u2028\n"},
        )
        services.seal_events()
        if position in HEADS_AT:
            services.sign_chain(interval=timedelta(0))


def verify(**options: Any) -> Verification:
    result = selectors.verify_chain(find_key=services.find_audit_key, **options)
    selectors.add_unsealed(result, sealed_before=timezone.now() + timedelta(hours=1))
    return result


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def tampered() -> Iterator[Callable[[str], list[tuple[str, int | None]]]]:
    """What is found after a statement; it is undone then."""

    def look(statement: str) -> list[tuple[str, int | None]]:
        with transaction.atomic():
            run(statement)
            found = [(finding.kind.value, finding.position) for finding in verify().findings]
            transaction.set_rollback(True)
        return found

    with without_audit_triggers():
        yield look


Tampered = Callable[[str], list[tuple[str, int | None]]]


def test_a_chain_as_it_was_made() -> None:
    result = verify()
    assert (result.findings, result.first, result.last) == ([], 1, LENGTH)
    assert result.head is not None
    assert (result.head.number, result.head.position) == (3, 7)


VALUES = {
    "id": "'01a2165e-f54e-706e-a9ed-7590fe81f4fe'",
    "at": "'2000-01-01 00:00:00+00:00'",
    "actor_id": "'01a2165e-f54e-706e-a9ed-7590fe81f4fe'",
    "credential_id": "'01a2165e-f54e-706e-a9ed-7590fe81f4fe'",
}


@pytest.mark.parametrize("column", [field.column for field in AuditEvent._meta.concrete_fields])
def test_a_changed_column_of_an_event(column: str, tampered: Tampered) -> None:
    value = VALUES.get(column, "'x'")
    if connection.vendor == "sqlite" and column in ("id", "actor_id", "credential_id"):
        value = value.replace("-", "")
    for position in range(1, LENGTH + 1):
        found = tampered(
            f"UPDATE security_auditevent SET {column} = {value}"
            f" WHERE id = (SELECT event_id FROM security_auditseal WHERE position = {position})"
        )
        kind = "missing_event" if column == "id" else "changed"
        assert (kind, position) in found, column


@pytest.mark.parametrize(
    ("statement", "expected"),
    {
        "an event's deletion": (
            "DELETE FROM security_auditevent WHERE id = (SELECT event_id FROM security_auditseal WHERE position = {0})",
            {("missing_event", 0)},
        ),
        "a seal's deletion": ("DELETE FROM security_auditseal WHERE position = {0}", {("unsealed", None)}),
        "a seal's hash": (
            f"UPDATE security_auditseal SET hash = '{'f' * 64}' WHERE position = {{0}}",
            {("changed", 0)},
        ),
        "a seal's link": (
            f"UPDATE security_auditseal SET previous = '{'f' * 64}' WHERE position = {{0}}",
            {("broken_link", 0), ("changed", 0)},
        ),
    }.values(),
)
def test_every_position(statement: str, expected: set[tuple[str, int | None]], tampered: Tampered) -> None:
    for position in range(1, LENGTH + 1):
        found = tampered(statement.format(position))
        assert {(kind, position if place == 0 else place) for kind, place in expected} <= set(found), position


def test_seals_that_are_gone_are_named(tampered: Tampered) -> None:
    for position in range(1, LENGTH):
        found = tampered(f"DELETE FROM security_auditseal WHERE position = {position}")
        assert ("missing_seal", position) in found
    assert ("truncated", LENGTH) in tampered(f"DELETE FROM security_auditseal WHERE position = {LENGTH}")


def test_two_that_changed_places(tampered: Tampered) -> None:
    run("UPDATE security_auditseal SET position = position + 100 WHERE position = 3")
    run("UPDATE security_auditseal SET position = 3 WHERE position = 4")
    found = tampered("UPDATE security_auditseal SET position = 4 WHERE position = 103")
    assert {("broken_link", 3), ("changed", 3), ("broken_link", 4), ("changed", 4)} <= set(found)


@pytest.mark.parametrize("column", ["number", "position", "hash", "signed_at", "key_id", "signature"])
def test_a_changed_head(column: str, tampered: Tampered) -> None:
    values = {"number": "99", "position": "1", "signed_at": VALUES["at"]}
    for number in (1, 2, 3):
        found = tampered(
            f"UPDATE security_audithead SET {column} = {values.get(column, repr('f' * 64))} WHERE number = {number}"
        )
        kinds = {kind for kind, _ in found}
        assert kinds & {"bad_signature", "unknown_key", "missing_head", "inserted"}, (column, number)


def test_a_head_that_is_gone(tampered: Tampered) -> None:
    for number in (1, 2, 3):
        found = tampered(f"DELETE FROM security_audithead WHERE number = {number}")
        assert [kind for kind, _ in found] == ["missing_head"]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM security_auditchain",
        "UPDATE security_auditchain SET position = position - 1, head_position = 0",
        "UPDATE security_auditchain SET position = position + 1",
        f"UPDATE security_auditchain SET hash = '{'f' * 64}'",
        "UPDATE security_auditchain SET head_number = head_number - 1",
        "UPDATE security_auditchain SET head_number = head_number + 1",
    ],
)
def test_a_changed_row_of_the_chain(statement: str, tampered: Tampered) -> None:
    assert tampered(statement)


def test_a_tail_that_was_cut_off_with_all_that_tells_of_it_but_a_signed_head(tampered: Tampered) -> None:
    run("DELETE FROM security_auditseal WHERE position > 5")
    ids = ", ".join(
        f"'{event_id.hex}'" for event_id in AuditEvent.objects.order_by("-id").values_list("id", flat=True)[:2]
    )
    run(f"DELETE FROM security_auditevent WHERE id IN ({ids})")
    seal = AuditSeal.objects.get(position=5)
    found = tampered(f"UPDATE security_auditchain SET position = 5, head_position = 4, hash = '{seal.hash}'")
    assert "missing_head" in {kind for kind, _ in found} or "truncated" in {kind for kind, _ in found}


def test_a_head_that_was_kept_elsewhere_tells_what_the_database_cannot(tampered: Tampered) -> None:
    kept = selectors.get_last_head()
    assert kept is not None
    assert verify(known_head=kept).findings == []
    run("DELETE FROM security_audithead WHERE number = 3")
    run("DELETE FROM security_auditseal WHERE position > 5")
    hashed = AuditSeal.objects.get(position=5).hash
    run("DELETE FROM security_auditevent WHERE id NOT IN (SELECT event_id FROM security_auditseal)")
    run(f"UPDATE security_auditchain SET position = 5, head_number = 2, head_position = 4, hash = '{hashed}'")
    # Cut off whole, and everything in the database agrees.
    assert verify().findings == []
    assert [finding.kind.value for finding in verify(known_head=kept).findings] == ["truncated"]


def test_a_chain_that_was_written_anew(tampered: Tampered) -> None:
    run("UPDATE security_auditevent SET outcome = 'x' WHERE resource_name = 'é3'")
    previous = AuditSeal.objects.get(position=2).hash
    for seal, event in list(selectors.iterate_seals(first=3, last=LENGTH)):
        assert event is not None
        digest = audit_chain.compute_hash(previous=previous, position=seal.position, event=event)
        run(
            f"UPDATE security_auditseal SET previous = '{previous}', hash = '{digest}' WHERE position = {seal.position}"
        )
        previous = digest
    found = tampered(f"UPDATE security_auditchain SET hash = '{previous}'")
    assert found == [("head_mismatch", 4), ("head_mismatch", 7)]


def test_a_range() -> None:
    result = verify(first=3, last=5)
    assert (result.findings, result.first, result.last) == ([], 3, 5)


def test_a_range_does_not_answer_for_the_rest(tampered: Tampered) -> None:
    run(f"UPDATE security_auditseal SET hash = '{'f' * 64}' WHERE position = 1")
    assert verify(first=3, last=5).findings == []


def test_the_newest_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selectors.verify_recent(find_key=services.find_audit_key).findings == []
    for _ in range(3):
        record_event(action="execution.ended", resource=Resource(kind="execution", name="new"), outcome="done")
    services.seal_events()
    # Behind the last head.
    result = verify(first=9)
    assert (result.findings, result.head) == ([], None)


def test_one_event_up_to_its_head(tampered: Tampered) -> None:
    checked = selectors.verify_event(position=3, find_key=services.find_audit_key)
    assert checked is not None
    assert (checked.findings, checked.first, checked.last) == ([], 3, 4)
    run("UPDATE security_auditevent SET outcome = 'x' WHERE resource_name = 'é3'")
    checked = selectors.verify_event(position=3, find_key=services.find_audit_key)
    assert checked is not None
    assert [finding.kind.value for finding in checked.findings] == ["changed"]


# The commands


def call(name: str, *arguments: str) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_the_command_says_that_all_is_well_and_how_far() -> None:
    text = call("verify_audit")
    assert "positions 1 to 7" in text
    assert "head is 3, at position 7" in text


def test_the_command_says_what_is_wrong_and_fails() -> None:
    with without_audit_triggers():
        run("UPDATE security_auditevent SET outcome = 'x' WHERE resource_name = 'é3'")
    out = StringIO()
    with pytest.raises(CommandError) as failed:
        call_command("verify_audit", stdout=out)
    assert failed.value.returncode == 1
    assert out.getvalue().startswith("changed: position 3: event ")


@pytest.mark.parametrize("arguments", [["--from", "0"], ["--from", "5", "--to", "4"], ["--to", "8"], ["--from", "9"]])
def test_what_cannot_be_checked_is_another_exit_code(arguments: list[str]) -> None:
    with pytest.raises(CommandError) as failed:
        call("verify_audit", *arguments)
    assert failed.value.returncode == 2


# The export


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("verify_audit_export", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export(path: Path, *arguments: str) -> list[str]:
    call("export_audit", "--output", str(path), *arguments)
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def publish_keys() -> dict[str, Any]:
    """The public audit key as a key set has it."""
    key = get_keyring().get_signing_key(KeyPurpose.AUDIT)
    public = base64.urlsafe_b64encode(key.private_key.public_key().public_bytes_raw()).decode().rstrip("=")
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": key.id, "x": public}]}


def check(lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What the example says of the lines."""
    (tmp_path / "checked.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (tmp_path / "keys.json").write_text(json.dumps(publish_keys()))
    capsys.readouterr()
    code = load_example().main([str(tmp_path / "checked.jsonl"), str(tmp_path / "keys.json")])
    return code, capsys.readouterr().out


def test_an_export_verifies_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = export(tmp_path / "audit.jsonl")
    assert len(lines) == 1 + LENGTH + len(HEADS_AT)
    assert "head" in json.loads(lines[-1])
    assert check(lines, tmp_path, capsys)[0] == 0
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_an_export_signs_what_is_not_signed_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_event(action="execution.ended", resource=Resource(kind="execution", name="new"), outcome="done")
    services.seal_events()
    lines = export(tmp_path / "audit.jsonl")
    assert json.loads(lines[-1])["head"]["position"] == LENGTH + 1
    assert check(lines, tmp_path, capsys)[0] == 0


def test_a_part_goes_on_to_a_signed_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = export(tmp_path / "audit.jsonl", "--from", "2", "--to", "3")
    header = json.loads(lines[0])
    assert (header["from"], header["to"]) == (2, 4)
    assert check(lines, tmp_path, capsys)[0] == 0


def test_an_exports_head_is_one_to_verify_against(tmp_path: Path) -> None:
    export(tmp_path / "audit.jsonl")
    assert "as it was sealed" in call("verify_audit", "--known-head", str(tmp_path / "audit.jsonl"))


def test_any_line_that_is_missing_twice_or_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = export(tmp_path / "audit.jsonl")
    for index in range(len(lines)):
        assert check(lines[:index] + lines[index + 1 :], tmp_path, capsys)[0] != 0, index
        assert check(lines[: index + 1] + lines[index:], tmp_path, capsys)[0] != 0, index
        swapped = [*lines]
        other = (index + 1) % len(lines)
        swapped[index], swapped[other] = swapped[other], swapped[index]
        assert check(swapped, tmp_path, capsys)[0] != 0, index


def test_any_value_that_is_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = export(tmp_path / "audit.jsonl")
    for index, line in enumerate(lines):
        for changed, path in iterate_changes(json.loads(line)):
            if path == ["exported_at"]:
                # When it was written down is nobody's statement.
                continue
            mutated = [*lines[:index], json.dumps(changed), *lines[index + 1 :]]
            code, text = check(mutated, tmp_path, capsys)
            assert code != 0, (index, path)
            if code == 1 and "event" in path:
                assert f"changed: event {changed['event']['id']} at position {changed['position']}" in text


def iterate_changes(value: Any) -> Iterator[tuple[Any, list[str]]]:
    """The object with each of its values, at any depth, another."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            for changed, path in iterate_changes(inner):
                yield {**value, name: changed}, [name, *path]
        else:
            yield {**value, name: inner + 1 if isinstance(inner, int) else f"{inner or ''}0"}, [name]


def test_the_chains_row_and_heads_agree() -> None:
    chain = AuditChain.objects.get()
    head = AuditHead.objects.order_by("-number").first()
    assert head is not None
    assert (chain.head_number, chain.head_position) == (head.number, head.position)

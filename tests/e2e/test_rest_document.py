"""The OpenAPI document against the running product: whatever it allows or forbids is answered as it says.

Schemathesis makes the requests. What it cannot know, such as what a tool takes, is refused by 400 or 422.
"""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import hypothesis
import msgspec
import pytest
import requests
import schemathesis
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from tests.e2e.conftest import Keys
from tests.services import Product

EXAMPLES = 20
ADDRESSES = 100


@schemathesis.serializer("application/msgpack")
def serialize_msgpack(_context: Any, value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except OverflowError:
        # JSON has integers that MessagePack has not; this byte is no MessagePack.
        return b"\xc1"


@schemathesis.deserializer("application/msgpack")
def deserialize_msgpack(_context: Any, response: Any) -> Any:
    return msgspec.msgpack.decode(response.content)


def is_uuid(value: object) -> bool:
    try:
        return bool(uuid.UUID(str(value)))
    except ValueError:
        return False


@pytest.fixture(scope="module")
def runs(product: Product, keys: Keys) -> list[str]:
    """Runs that there are: addresses with made-up ids alone would all be 404."""
    made = []
    for number in range(5):
        answer = httpx2.post(
            f"{product.url}api/v1/tools/text.count_words/execute/?wait=10",
            headers={"Authorization": f"Bearer {keys.agent}"},
            json={"input": {"text": f"run {number}"}},
        )
        made.append(answer.json()["execution_id"])
    return made


@pytest.fixture(scope="module")
def document(product: Product, runs: list[str]) -> Any:
    answer = httpx2.get(f"{product.url}api/v1/openapi.json")
    assert answer.status_code == 200
    schema = schemathesis.openapi.from_dict(json.loads(answer.content))
    schema.config.update(base_url=product.url)
    chosen = random.Random(20)  # noqa: S311  # examples, no secrets

    @schema.hook("map_path_parameters")
    def use_what_there_is(_context: Any, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if parameters and is_uuid(parameters.get("execution")) and chosen.random() < 0.7:
            return {**parameters, "execution": chosen.choice(runs)}
        return parameters

    return schema


api = schemathesis.pytest.from_fixture("document")


class InTurnFromElsewhere(HTTPAdapter):
    """From one address of this test's own after the other: repeated denials of one would wait, or lock it out."""

    def __init__(self) -> None:
        super().__init__()
        self._addresses = itertools.cycle([f"127.9.0.{number}" for number in range(1, ADDRESSES + 1)])

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.poolmanager.connection_pool_kw["source_address"] = (next(self._addresses), 0)
        return super().send(*args, **kwargs)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("http://", InTurnFromElsewhere())
        yield session


@pytest.fixture(scope="module")
def guarded() -> set[str]:
    """The operations that were seen to refuse whoever shows no credential or a wrong one."""
    return set()


def has_wrong_data(case: Any) -> bool:
    """Whether anything of the request but its headers is against the document: other headers may be sent at will."""
    looked_at = {ParameterLocation.PATH, ParameterLocation.QUERY, ParameterLocation.BODY}
    components = case.meta.components.items() if case.meta else ()
    return any(info.mode is GenerationMode.NEGATIVE for place, info in components if place in looked_at)


@api.parametrize()
# The same requests each time: another that fails is for whoever looks for it, by more EXAMPLES, to find.
@hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_answers_conform(case: Any, keys: Keys, session: requests.Session, guarded: set[str]) -> None:
    # What a command's arguments mean is more than a schema says: 400 and 422 refuse well-formed ones too.
    excluded: list[Any] = [positive_data_acceptance]
    if not has_wrong_data(case):
        excluded.append(negative_data_rejection)
    if case.operation.label in guarded:
        # It asks once more without and with a wrong credential, of one address, whose denials wait for each other.
        excluded.append(ignored_auth)
    answer = case.call_and_validate(
        session=session,
        headers={"Authorization": f"Bearer {keys.agent}"},
        excluded_checks=excluded,
    )
    if answer.status_code < 300:
        guarded.add(case.operation.label)

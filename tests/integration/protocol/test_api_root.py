"""``GET /api/v1/``: what a client may know before it connects."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


def test_root_says_what_the_handshake_will_offer(client: Client) -> None:
    answer = client.get("/api/v1/", headers={"host": "localhost"})
    assert answer.status_code == 200
    root = answer.json()
    assert root["protocol_versions"] == ["1.1"]
    assert root["features"] == ["progress"]
    assert root["authentication_methods"] == ["jwt", "api_key", "password"]
    assert root["limits"]["max_in_flight"] == 64
    assert root["websocket_url"] == "ws://localhost/ws/"
    assert root["websocket_subprotocols"] == ["mcp.v1.msgpack", "mcp.v1.json"]


def test_root_only_tells(client: Client) -> None:
    assert client.post("/api/v1/", {}).status_code == 405


def test_an_address_that_there_is_not_is_a_problem_whatever_the_method() -> None:
    client = Client(enforce_csrf_checks=True)
    for answer in (client.get("/api/v1/no/such/"), client.post("/api/v1/no/such/", {})):
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert answer.json()["code"] == "protocol.unknown_command"

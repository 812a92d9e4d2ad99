"""What tests of the console in this process share: an operator, and a browser that is signed in as one."""

from __future__ import annotations

import pytest
from django.test import Client

from security.models import Account
from tests.factories import create_operator
from tests.unrecorded import unrecorded


@pytest.fixture
def operator() -> Account:
    """A superuser with the role ``operator``."""
    return create_operator()


@pytest.fixture
def console(client: Client, operator: Account) -> Client:
    """The operator's browser."""
    with unrecorded():
        client.force_login(operator)
    return client

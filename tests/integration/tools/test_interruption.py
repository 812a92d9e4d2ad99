"""Interruptions themselves: they strike once, inside, and leave the database usable."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from protocol.models import Session
from tools.services.interruption import (
    CANCEL_SIGNAL,
    CancelRequested,
    RunInterrupted,
    TimeLimitReached,
    held_back,
    interruptible,
)

pytestmark = [
    pytest.mark.usefixtures("without_collector"),
    # After one the database connection is new, which would take a test's own transaction with it.
    pytest.mark.django_db(transaction=True),
    # The default method uses the very signal that is tested.
    pytest.mark.timeout(60, method="thread"),
]


def run(body: Callable[[], object], *, seconds: float = 10.0) -> type[RunInterrupted] | None:
    """Which interruption came out of the body."""
    try:
        with interruptible(seconds=seconds):
            body()
    except RunInterrupted as interruption:
        return type(interruption)
    return None


def touch_database() -> None:
    with transaction.atomic():
        Session.objects.filter(close_code=1).update(close_code=2)


def test_an_interruption_anywhere_in_the_database_layer_leaves_it_usable() -> None:
    """With the connection kept, about one strike in fifteen leaves a transaction open that nobody knows of."""

    def keep_touching() -> None:
        while True:
            touch_database()

    for number in range(150):
        assert run(keep_touching, seconds=0.003 + number % 50 * 0.00005) is TimeLimitReached
        touch_database()
        assert not connection.in_atomic_block


def test_the_database_is_usable_also_where_the_tool_kept_the_interruption_to_itself() -> None:
    def swallow() -> None:
        transaction.set_autocommit(False)
        try:
            Session.objects.filter(close_code=1).update(close_code=2)
            signal.raise_signal(CANCEL_SIGNAL)
        except BaseException:  # noqa: BLE001, S110  # what is tested
            pass

    assert run(swallow) is None
    assert connection.get_autocommit()
    touch_database()


def test_what_the_tool_makes_of_an_interruption_is_that_interruption() -> None:
    def fail_because_of_it() -> None:
        try:
            signal.raise_signal(CANCEL_SIGNAL)
        except RunInterrupted:
            raise ValueError("something broke") from None

    assert run(fail_because_of_it) is CancelRequested


def test_an_error_without_an_interruption_stays_what_it_is() -> None:
    def fail() -> None:
        raise ValueError("something broke")

    with pytest.raises(ValueError, match="something broke"):
        run(fail)


def test_of_two_interruptions_one_strikes() -> None:
    def outlast_both() -> None:
        try:
            signal.raise_signal(CANCEL_SIGNAL)
        finally:
            time.sleep(0.1)

    assert run(outlast_both, seconds=0.05) is CancelRequested


def test_nothing_strikes_behind_the_body() -> None:
    assert run(lambda: None, seconds=0.02) is None
    time.sleep(0.04)
    previous = signal.getsignal(CANCEL_SIGNAL)
    assert run(lambda: None) is None
    assert signal.getsignal(CANCEL_SIGNAL) is previous
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_where_no_time_is_left_the_body_does_not_begin() -> None:
    began: list[bool] = []
    assert run(lambda: began.append(True), seconds=0) is TimeLimitReached
    assert began == []


def test_what_is_held_back_strikes_behind_it() -> None:
    steps: list[str] = []

    def hold_back() -> None:
        with held_back():
            time.sleep(0.05)
            steps.append("inside")
        steps.append("behind")

    assert run(hold_back, seconds=0.02) is TimeLimitReached
    assert steps == ["inside"]


def test_holding_back_ends_however_it_is_struck() -> None:

    def hold_back_again_and_again() -> None:
        while True:
            with held_back():
                pass

    for _ in range(50):
        assert run(hold_back_again_and_again, seconds=0.002) is TimeLimitReached


def test_only_a_main_thread_can_be_interrupted() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError):
        pool.submit(run, lambda: None).result()

"""Writers of SQLite take turns, whoever they are, and whatever ends them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest
from django.db import OperationalError

from mcp_site.sqlite.base import Connection

SECONDS = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    connection = open_database(tmp_path / "db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE counter (number INTEGER)")
    connection.execute("INSERT INTO counter VALUES (0)")
    connection.close()
    return tmp_path / "db"


def open_database(path: Path) -> Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=5, factory=Connection, check_same_thread=False)


def take_turn(connection: Connection, path: Path, *, seconds: float = SECONDS) -> None:
    connection.take_turn(path=f"{path}-turn", seconds=seconds)


def count(path: Path, times: int) -> None:
    connection = open_database(path)
    for _ in range(times):
        take_turn(connection, path, seconds=60)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE counter SET number = number + 1")
        connection.commit()
    connection.close()


def hold(path: Path, pipe: Pipe) -> None:
    """Takes its turn, says so, and stays."""
    connection = open_database(path)
    take_turn(connection, path)
    connection.execute("BEGIN IMMEDIATE")
    pipe.send("has it")
    signal.pause()


@pytest.fixture
def holder(path: Path) -> Iterator[int]:
    """A process that has the turn."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(path, theirs))
    process.start()
    assert process.pid is not None
    assert ours.poll(60)
    yield process.pid
    process.kill()
    process.join()


def read_counter(path: Path) -> int:
    connection = open_database(path)
    (number,) = connection.execute("SELECT number FROM counter").fetchone()
    connection.close()
    return int(number)


def test_processes_and_threads_write_one_after_the_other(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count, args=(path, 50)) for _ in range(2)]
    threads = [threading.Thread(target=count, args=(path, 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for thread in threads:
        thread.start()
    for process in processes:
        process.join()
    for thread in threads:
        thread.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert read_counter(path) == 250


def test_who_waits_too_long_is_told(path: Path, holder: int) -> None:  # it has the turn
    connection = open_database(path)
    with pytest.raises(OperationalError, match="locked"):
        take_turn(connection, path, seconds=0.05)
    connection.close()


def test_the_turn_of_a_process_that_dies_is_free(path: Path, holder: int) -> None:
    os.kill(holder, signal.SIGKILL)
    count(path, 1)
    assert read_counter(path) == 1


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_the_turn_ends_with_the_transaction_or_the_connection(path: Path, end: str) -> None:
    first, second = open_database(path), open_database(path)
    take_turn(first, path)
    first.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError):
        take_turn(second, path, seconds=0.05)
    getattr(first, end)()
    take_turn(second, path, seconds=0.05)
    second.close()
    first.close()


def test_a_forked_child_has_no_part_in_its_parents_turn(path: Path) -> None:
    connection = open_database(path)
    take_turn(connection, path)
    child = os.fork()
    if child == 0:
        # Were the lock of the process inherited, nobody would ever give it back here.
        own = open_database(path)
        try:
            take_turn(own, path, seconds=0.05)
        except OperationalError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    connection.close()
    count(path, 1)

"""Lists with a million runs behind them: fill a new database, then ask the running product for every list.

Requests come one after another over one connection, so that the time from the first byte sent to the last received is
the server's, with what the loopback takes. What needs the product's own code is a process of its own, ``inside``.
"""

from __future__ import annotations

import http.client
import re
import statistics
import time
from http.cookies import SimpleCookie
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from benchmarks.facts import OPERATOR, Facts, Filled, Filling
from benchmarks.product import LoadFailed, Product
from benchmarks.questions import Question, find_fault, list_questions, read_cursor
from benchmarks.results import ListResult, ListsResult, ListTimes

LOGIN: Final = "/admin/login/"
TOKEN: Final = re.compile(rb'name="csrfmiddlewaretoken" value="([^"]+)"')
REQUEST_SECONDS: Final = 120.0
UNTHROTTLED: Final = {"MCP_REQUESTS_PER_MINUTE": "1000000"}
"""The settings of this part: a client that asks without a pause is what is wanted here."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes
    seconds: float


class Browser:
    """One connection, with an API key or a session's cookies."""

    def __init__(self, address: str, *, key: str | None = None) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=REQUEST_SECONDS)
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._cookies: dict[str, str] = {}

    def get(self, target: str) -> Answer:
        return self._ask("GET", target)

    def sign_in(self, *, username: str, password: str) -> None:
        """As a person does, by the form.

        Raises:
            LoadFailed: the console does not let them in.
        """
        token = TOKEN.search(self.get(LOGIN).body)
        assert token is not None
        form = {"csrfmiddlewaretoken": token[1].decode(), "username": username, "password": password, "next": "/admin/"}
        if self._ask("POST", LOGIN, urlencode(form)).status != http.client.FOUND:
            raise LoadFailed("the console refuses the operator's password")

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, target: str, form: str | None = None) -> Answer:
        headers = dict(self._headers)
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        started = time.perf_counter()
        self._connection.request(method, target, body=form, headers=headers)
        response = self._connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - started
        for line in response.headers.get_all("Set-Cookie") or []:
            self._cookies.update({name: morsel.value for name, morsel in SimpleCookie(line).items()})
        return Answer(status=response.status, body=body, seconds=seconds)


def measure_lists(product: Product, *, rows: int, repeats: int, only: str) -> ListsResult:
    """Fill the product's database, which must be new, and ask for everything, with and without statistics.

    ``only`` is a regular expression: the questions whose name it finds. The product is stopped at the end.
    """
    product.manage("serve", "prepare")
    filled = msgspec.json.decode(
        product.run_module("benchmarks.inside", "fill", given=msgspec.json.encode(Filling(rows=rows, only=only))),
        type=Filled,
    )
    errors = dict.fromkeys(filled.faults, 1)
    questions = list_questions(filled.facts, only=only)
    without_statistics = _ask_all(product, filled.facts, questions, repeats=repeats, errors=errors)
    product.run_module("benchmarks.inside", "analyse")
    with_statistics = _ask_all(product, filled.facts, questions, repeats=repeats, errors=errors)
    return ListsResult(
        rows=rows,
        rows_small=filled.rows_small,
        filling_seconds=filled.seconds,
        errors=errors,
        questions=[
            ListResult(
                name=question.name,
                account=question.account,
                path=question.path,
                query=list(question.query),
                queries=filled.queries[question.name].full,
                queries_small=filled.queries[question.name].small,
                without_statistics=without_statistics[question.name],
                with_statistics=with_statistics[question.name],
            )
            for question in questions
        ],
    )


def _ask_all(
    product: Product, facts: Facts, questions: list[Question], *, repeats: int, errors: dict[str, int]
) -> dict[str, ListTimes]:
    """The times of every question, asked of a product that has just started."""
    product.start()
    browsers = {account: Browser(product.url, key=key) for account, key in facts.keys.items()}
    browsers[OPERATOR] = Browser(product.url)
    browsers[OPERATOR].sign_in(username=OPERATOR, password=facts.password)
    times = {}
    for question in questions:
        browser = browsers[question.account]
        # The server ends a connection that was idle; the next request opens another.
        browser.close()
        cursor_target = question.make_cursor_target()
        cursor = None if cursor_target is None else read_cursor(browser.get(cursor_target).body)
        target = question.make_target(cursor)
        answers = [browser.get(target) for _ in range(repeats + 1)]
        for answer in answers:
            fault = find_fault(question, status=answer.status, body=answer.body)
            if fault is not None:
                errors[f"{question.name}: {fault}"] = errors.get(f"{question.name}: {fault}", 0) + 1
        milliseconds = [answer.seconds * 1000 for answer in answers[1:]]
        times[question.name] = ListTimes(
            median_ms=statistics.median(milliseconds), worst_ms=max(milliseconds), first_ms=answers[0].seconds * 1000
        )
    for browser in browsers.values():
        browser.close()
    product.stop()
    return times

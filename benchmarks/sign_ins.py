"""``python -m benchmarks.sign_ins``: whether the time of a failed sign-in tells what was wrong with it.

A server of its own is asked at each door, one attempt after another: for tokens by ``POST /api/v1/auth/token/``, by
``authentication`` on WebSockets (opened and shaken hands with before the clock starts), and by the console's form; each
kind of failure in a random order, each attempt from an address of its own (by a trusted ``X-Forwarded-For``), so that
no lock-out ends the look. The console asks for a code in a step of its own, and so tells a right password by design:
there the kinds with a second factor are left out. Every kind is held against a wrong password: difference of medians
with a bootstrap interval of 95 %, and Mann-Whitney's U (normal approximation, two-sided). Linux and the development
environment.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import random
import statistics
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
from websockets.sync.client import connect

from benchmarks.product import PROJECT_ROOT, Product, install_product
from benchmarks.results import describe_machine, get_now, list_versions, read_commit

RESULT: Final = PROJECT_ROOT / "benchmarks" / "results" / "local" / "sign-ins.json"
VARIABLES: Final = {"MCP_TRUSTED_PROXIES": "127.0.0.1/32", "MCP_SIGN_INS_PER_MINUTE": "1000000"}
PROXIED: Final = {"X-Forwarded-Proto": "https"}
PASSWORD: Final = "correct-horse-battery"  # noqa: S105  # of accounts that this file makes and throws away
BASELINE: Final = "wrong password"
RESAMPLES: Final = 2_000
ALIKE_MS: Final = 2.0
"""A difference that is certainly above this is one that tells something over a network."""
REFUSED: Final = "security.authentication_failed"

MAKE: Final = f"""
from security import services
from security.models import Account
from security.selectors import get_account_principal
from security.domain.second_factor import get_step, make_code
from security.models import AuthenticatorApp
from django.utils import timezone
person = services.create_account(username="timed-person", password={PASSWORD!r})
inactive = services.create_account(username="timed-inactive", password={PASSWORD!r})
inactive.is_active = False
services.save_account(account=inactive)
services.create_account(username="timed-without")
services.create_account(username="timed-service", kind=Account.Kind.SERVICE)
holder = services.create_account(username="timed-holder", password={PASSWORD!r})
app = services.begin_enrolment(account=holder)
secret = AuthenticatorApp.objects.get(id=app).secret
code = make_code(secret=secret, step=get_step(now=timezone.now()))
by = get_account_principal(account=holder)
services.confirm_enrolment(account=holder, app_id=app, code=code, principal=by, trace_id="")
"""

KINDS: Final[dict[str, dict[str, str]]] = {
    BASELINE: {"username": "timed-person", "password": "wrong"},
    "wrong password again": {"username": "timed-person", "password": "wrong"},
    "unknown account": {"username": "timed-nobody", "password": PASSWORD},
    "inactive account": {"username": "timed-inactive", "password": PASSWORD},
    "account without a password": {"username": "timed-without", "password": PASSWORD},
    "service account": {"username": "timed-service", "password": PASSWORD},
    "second factor, wrong password, a code": {"username": "timed-holder", "password": "wrong", "code": "000000"},
    "second factor, right password, no code": {"username": "timed-holder", "password": PASSWORD},
    "second factor, right password, wrong code": {"username": "timed-holder", "password": PASSWORD, "code": "000000"},
}


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of failure at one door; times in milliseconds, differences from a wrong password."""

    door: str
    name: str
    count: int
    median_ms: float
    p90_ms: float
    difference_ms: float
    interval_ms: tuple[float, float]
    mann_whitney_p: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    made_at: datetime
    commit: Any
    machine: Any
    versions: Any
    kinds: list[Kind]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sign_ins", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="attempts of each kind at each door; default 100")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the resampling; default 1")
    parser.add_argument("--output", type=Path, default=RESULT, help="the JSON file to write")
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)  # noqa: S311  # an order and a resampling, no secret
    with install_product(VARIABLES) as product:
        product.start()
        product.manage("shell", "--no-imports", "-c", MAKE)
        times = {name: measure(door(product), count=options.count, chance=chance) for name, door in DOORS.items()}
        product.stop()
    report = Report(
        made_at=get_now(),
        commit=read_commit(PROJECT_ROOT),
        machine=describe_machine(),
        versions=list_versions(),
        kinds=[
            compare(door, name, found, by_kind[BASELINE], chance=chance)
            for door, by_kind in times.items()
            for name, found in by_kind.items()
        ],
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    print(format_table(report.kinds))
    # An interval that lies beyond it on one side.
    told = [
        f"{kind.name} ({kind.door})"
        for kind in report.kinds
        if kind.interval_ms[0] > ALIKE_MS or kind.interval_ms[1] < -ALIKE_MS
    ]
    if told:
        print(f"told apart by more than {ALIKE_MS:g} ms: {', '.join(told)}")
    return 1 if told else 0


class Door:
    """One way in; ``try_one`` gives the milliseconds that one refusal took."""

    kinds: Mapping[str, Mapping[str, str]] = KINDS

    def __init__(self, product: Product) -> None:
        self.place = urlsplit(product.url).netloc
        self.connection = http.client.HTTPConnection(self.place, timeout=60)

    def try_one(self, credentials: Mapping[str, str], *, address: str) -> float:
        raise NotImplementedError

    def request(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> tuple[Any, bytes, float]:
        """The answer, its body, and the milliseconds that it took."""
        started = time.perf_counter()
        self.connection.request(method, path, body, {**PROXIED, **headers})
        answer = self.connection.getresponse()
        content = answer.read()
        return answer, content, (time.perf_counter() - started) * 1000


class RestDoor(Door):
    def try_one(self, credentials: Mapping[str, str], *, address: str) -> float:
        headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
        _, body, elapsed = self.request("POST", "/api/v1/auth/token/", json.dumps(credentials), headers)
        assert json.loads(body)["code"] == REFUSED, body
        return elapsed


class SocketDoor(Door):
    def try_one(self, credentials: Mapping[str, str], *, address: str) -> float:
        headers = {**PROXIED, "X-Forwarded-For": address}
        url = f"ws://{self.place}/ws/"
        with connect(url, additional_headers=headers, compression=None, proxy=None) as socket:
            socket.send(make_message("handshake", {"protocol_versions": ["1.1"], "client": {"name": "benchmark"}}))
            assert json.loads(socket.recv(timeout=60))["type"] == "handshake"
            message = make_message("authentication", {"method": "password", **credentials})
            started = time.perf_counter()
            socket.send(message)
            answer = json.loads(socket.recv(timeout=60))
            elapsed = (time.perf_counter() - started) * 1000
        assert answer["payload"]["code"] == REFUSED, answer
        return elapsed


class ConsoleDoor(Door):
    kinds = {name: credentials for name, credentials in KINDS.items() if credentials["username"] != "timed-holder"}

    def __init__(self, product: Product) -> None:
        super().__init__(product)
        answer, page, _ = self.request("GET", "/admin/login/", None, {})
        self._cookie = answer.headers["Set-Cookie"].partition(";")[0]
        self._token = page.partition(b'name="csrfmiddlewaretoken" value="')[2].partition(b'"')[0].decode()

    def try_one(self, credentials: Mapping[str, str], *, address: str) -> float:
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": self._cookie,
            "Referer": f"https://{self.place}/admin/login/",
            "X-Forwarded-For": address,
        }
        form = urlencode({**credentials, "csrfmiddlewaretoken": self._token})
        answer, body, elapsed = self.request("POST", "/admin/login/", form, headers)
        assert answer.status == 200, (answer.status, body[:500])
        assert b"csrfmiddlewaretoken" in body, body[:500]
        return elapsed


DOORS: Final[Mapping[str, type[Door]]] = {"REST": RestDoor, "WebSocket": SocketDoor, "console": ConsoleDoor}


def make_message(message_type: str, payload: Mapping[str, Any]) -> str:
    """One message as JSON."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"id": uuid.uuid4().hex, "type": message_type, "payload": payload, "timestamp": now})


def measure(door: Door, *, count: int, chance: random.Random) -> dict[str, list[float]]:
    """Milliseconds of each kind's failures.

    Raises:
        AssertionError: one was answered otherwise.
    """
    times: dict[str, list[float]] = {name: [] for name in door.kinds}
    order = [name for name in door.kinds for _ in range(count)]
    chance.shuffle(order)
    # The first ones pay for what is loaded at its first use.
    for number, name in enumerate([*door.kinds, *order]):
        elapsed = door.try_one(door.kinds[name], address=f"198.18.{number // 250}.{number % 250}")
        if number >= len(door.kinds):
            times[name].append(elapsed)
    return times


def compare(door: str, name: str, found: list[float], baseline: list[float], *, chance: random.Random) -> Kind:
    """The kind against the baseline."""
    differences = sorted(
        statistics.median(chance.choices(found, k=len(found)))
        - statistics.median(chance.choices(baseline, k=len(baseline)))
        for _ in range(RESAMPLES)
    )
    return Kind(
        door=door,
        name=name,
        count=len(found),
        median_ms=round(statistics.median(found), 2),
        p90_ms=round(statistics.quantiles(found, n=10)[-1], 2),
        difference_ms=round(statistics.median(found) - statistics.median(baseline), 2),
        interval_ms=(
            round(differences[int(RESAMPLES * 0.025)], 2),
            round(differences[int(RESAMPLES * 0.975)], 2),
        ),
        mann_whitney_p=round(get_mann_whitney_p(found, baseline), 4),
    )


def get_mann_whitney_p(first: Sequence[float], second: Sequence[float]) -> float:
    """How likely so unlike orders are where the two are alike. Times have no ties."""
    if list(first) == list(second):
        return 1.0
    ranks = {id(value): rank for rank, value in enumerate(sorted([*first, *second]), start=1)}
    smaller = sum(ranks[id(value)] for value in first) - len(first) * (len(first) + 1) / 2
    mean = len(first) * len(second) / 2
    deviation = math.sqrt(len(first) * len(second) * (len(first) + len(second) + 1) / 12)
    return math.erfc(abs(smaller - mean) / deviation / math.sqrt(2))


def format_table(kinds: Sequence[Kind]) -> str:
    """For people."""
    lines = [f"{'door':10} {'kind':42} {'n':>4} {'median ms':>10} {'p90':>8} {'difference [95 %]':>24} {'p':>7}"]
    for kind in kinds:
        low, high = kind.interval_ms
        difference = f"{kind.difference_ms:+.2f} [{low:+.2f}, {high:+.2f}]"
        lines.append(
            f"{kind.door:10} {kind.name:42} {kind.count:>4} {kind.median_ms:>10.2f} {kind.p90_ms:>8.2f}"
            f" {difference:>24} {kind.mann_whitney_p:>7.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

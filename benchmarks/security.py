"""``python -m benchmarks security``: what security takes of each message, in CPU-µs.

First each step by itself, in this process, with a database (SQLite) and a Valkey of its own; CPU is that of the whole
process, so that a limiter's leases are in it. Every answer is checked. Then whole pings of a product of its own at the
levels ``standard``, ``high`` and ``critical``: the CPU of its web process. Figures: JSON, a picture, and a table.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.load import Workload
from benchmarks.measure import SEALED_LOAD, Load, Target, measure_loads
from benchmarks.picture import BLUE, DOTS_PER_INCH, GREY, ORANGE
from benchmarks.product import PROJECT_ROOT, LoadFailed, ProductError, install_product, wait_until_quiet
from benchmarks.results import LoadResult, describe_machine, get_now, list_versions, read_commit
from benchmarks.sealing import Level

RESULT: Final = PROJECT_ROOT / "benchmarks" / "results" / "local" / "security.json"
BATCH: Final = 200
"""What is prepared at a time, outside of what is measured."""
DENIAL_BATCH: Final = 20
MANY_GRANTS: Final = 200
SIZES: Final = {"400 B": 400, "4 KB": 4096}
ADDRESS: Final = "192.0.2.7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a message's way."""

    name: str
    prepare: Callable[[], Sequence[Any]]
    """What the next batch is done with; not measured."""
    act: Callable[[Any], object]
    is_right: Callable[[object], bool]


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cpu_us: float
    """The median of the windows."""
    windows_us: list[float]
    acts: int


class SecurityReport(msgspec.Struct, frozen=True, kw_only=True):
    command: str
    taken_at: datetime
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    has_local_changes: bool | None
    steps: list[StepResult]
    ping: list[LoadResult]


class AnswerWrong(Exception):
    """A step did not come to what it has to come to."""


def measure_steps(steps: Sequence[Step], *, seconds: float, repeats: int, patience: float) -> list[StepResult]:
    """Each step in so many windows, all of them in turn.

    Raises:
        AnswerWrong: one did not come to what it has to.
    """
    windows: dict[str, list[float]] = {step.name: [] for step in steps}
    acts = dict.fromkeys(windows, 0)
    for _ in range(repeats):
        for step in steps:
            wait_until_quiet(seconds=patience)
            done, cpu = measure_window(step, seconds=seconds)
            windows[step.name].append(cpu / done * 1e6)
            acts[step.name] += done
    return [
        StepResult(name=name, cpu_us=statistics.median(found), windows_us=found, acts=acts[name])
        for name, found in windows.items()
    ]


def measure_window(step: Step, *, seconds: float) -> tuple[int, float]:
    """How often it was done, and the CPU seconds that it took."""
    act, done, cpu = step.act, 0, 0.0
    for given in step.prepare():
        act(given)
    give_up_at = time.perf_counter() + seconds
    while not done or time.perf_counter() < give_up_at:
        batch = step.prepare()
        began = time.process_time()
        answers = [act(given) for given in batch]
        cpu += time.process_time() - began
        done += len(batch)
        if not all(map(step.is_right, answers)):
            raise AnswerWrong(step.name)
    return done, cpu


@contextmanager
def open_steps() -> Iterator[list[Step]]:
    """The steps, over a database and a Valkey that go with them."""
    with tempfile.TemporaryDirectory(prefix="mcp-security-") as name:
        folder = Path(name)
        (folder / "var").mkdir(mode=0o700)
        os.environ |= {
            "MCP_DATA_DIR": str(folder / "var"),
            "DJANGO_SETTINGS_MODULE": "mcp_site.settings",
            "MCP_REQUESTS_PER_MINUTE": "100000000",
        }
        import django  # noqa: PLC0415  # the data folder is set first

        django.setup()
        from django.core.management import call_command  # noqa: PLC0415  # as above

        from tests.keys import ensure_keys  # noqa: PLC0415  # as above
        from tests.services import run_valkey  # noqa: PLC0415  # as above

        call_command("migrate", verbosity=0)
        ensure_keys()
        with run_valkey(socket=folder / "broker.sock", data_dir=folder):
            yield [
                *list_authentication(),
                *list_policy(),
                *list_limits(f"unix://{folder / 'broker.sock'}"),
                *list_sealing(),
                make_signature_step(),
                make_denial_step(),
            ]


def list_authentication() -> list[Step]:
    """Credentials to a principal, with the queries that are asked each time."""
    from protocol.domain.messages import ApiKeyCredentials, JwtCredentials  # noqa: PLC0415  # Django is set up first
    from protocol.ports import get_authenticator  # noqa: PLC0415  # as above
    from tests.factories import issue_key, issue_tokens  # noqa: PLC0415  # as above

    key = issue_key()
    shown = {
        "authenticate: token, its signature checked before": JwtCredentials(token=issue_tokens(key=key).access),
        "authenticate: API key": ApiKeyCredentials(key=key.secret),
    }
    authenticator = get_authenticator()
    return [
        Step(
            name=name,
            prepare=lambda credentials=credentials: [credentials] * BATCH,  # type: ignore[misc]  # a lambda's default
            act=lambda given: authenticator.authenticate(credentials=given, remote_address=ADDRESS),
            is_right=lambda principal: getattr(principal, "id", None) == key.api_key.account_id,
        )
        for name, credentials in shown.items()
    ]


def list_policy() -> list[Step]:
    """Decisions, remembered and new, of a principal with the agent's grants and of one with many under conditions."""
    from django.utils import timezone  # noqa: PLC0415  # Django is set up first

    from protocol.ports import Resource  # noqa: PLC0415  # as above
    from security.domain.authorization import PolicyAuthorizer  # noqa: PLC0415  # as above
    from security.domain.builtin_roles import BUILTIN_ROLES  # noqa: PLC0415  # as above
    from security.domain.conditions import parse_conditions  # noqa: PLC0415  # as above
    from security.domain.policy import Effect, GrantRule  # noqa: PLC0415  # as above
    from tests.factories import allow, make_principal  # noqa: PLC0415  # as above

    (agent,) = (role for role in BUILTIN_ROLES if role.name == "agent")
    few = [allow(action, resource) for action, resource in sorted(agent.grants)]
    conditions = parse_conditions({"networks": ["192.0.2.0/24", "2001:db8::/32"], "minimum_level": "standard"})
    many = [
        GrantRule(
            effect=Effect.DENY if number % 4 == 0 else Effect.ALLOW,
            action_pattern="tools.*",
            resource_pattern=f"tool:pack{number}.*",
            conditions=conditions,
        )
        for number in range(MANY_GRANTS - 1)
    ]
    authorizer = PolicyAuthorizer(clock=timezone.now)
    numbers = iter(range(1_000_000_000))

    def make_steps(label: str, grants: Sequence[GrantRule]) -> Iterator[Step]:
        principal = replace(make_principal(grants=grants), remote_address=ADDRESS)
        known = Resource(kind="tool", name="text.count_words")

        def act(resource: Resource) -> bool:
            return authorizer.is_allowed(principal=principal, action="tools.execute", resource=resource)

        for kind, prepare in (
            ("remembered", lambda: [known] * BATCH),
            ("new", lambda: [Resource(kind="tool", name=f"text.tool{next(numbers)}") for _ in range(BATCH)]),
        ):
            yield Step(name=f"policy: {kind}, {label}", prepare=prepare, act=act, is_right=lambda told: told is True)

    return [
        *make_steps(f"{len(few)} grants", few),
        *make_steps(f"{MANY_GRANTS} grants with conditions", [*many, allow("tools.*", "tool:text.*")]),
    ]


def list_limits(redis_url: str) -> list[Step]:
    """Counting a command: against nothing at all, against each account's limit, and against five."""
    from security.domain.limits import UNLIMITED_COMMANDS  # noqa: PLC0415  # Django is set up first
    from security.services import SharedLimiter  # noqa: PLC0415  # as above
    from tests.factories import make_principal  # noqa: PLC0415  # as above

    limiter = SharedLimiter(redis_url=redis_url)
    more = [replace(limiter.default_rule, id=uuid.uuid4(), name=f"limit {number}") for number in range(4)]
    (uncounted, *_) = sorted(UNLIMITED_COMMANDS)

    def make_step(label: str, command: str, principal: Any) -> Step:
        def act(name: str) -> bool:
            if not limiter.try_take(principal=principal, command=name):
                limiter.take_in_thread(principal=principal, command=name)
            return True

        return Step(
            name=f"limits: {label}", prepare=lambda: [command] * BATCH, act=act, is_right=lambda told: told is True
        )

    limited = replace(make_principal(), limits=tuple(more))
    return [
        make_step("none", uncounted, make_principal()),
        make_step("one", "session.ping", make_principal()),
        make_step("five", "session.ping", limited),
    ]


def list_sealing() -> list[Step]:
    """Sealing an answer and opening a command."""
    from security.domain.connection_keys import derive_keys  # noqa: PLC0415  # Django is set up first
    from security.domain.sealing import SealedChannel  # noqa: PLC0415  # as above

    keys = derive_keys(shared_secret=os.urandom(32), transcript_hash=os.urandom(32), key_id="benchmark")
    mirrored = type(keys)(
        key_id=keys.key_id,
        transcript_hash=keys.transcript_hash,
        client_to_server=keys.server_to_client,
        server_to_client=keys.client_to_server,
    )
    head: dict[str, Any] = {
        "message_id": str(uuid.uuid4()),
        "message_type": "command",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "security_level": "high",
    }

    def make_steps(label: str, plaintext: bytes) -> Iterator[Step]:
        sealing, client, server = SealedChannel(keys), SealedChannel(mirrored), SealedChannel(keys)
        yield Step(
            name=f"high: seal {label}",
            prepare=lambda: [plaintext] * BATCH,
            act=lambda given: sealing.seal(**head, plaintext=given),
            is_right=lambda sealed: isinstance(sealed, tuple) and len(sealed[1]) == len(plaintext) + 16,
        )
        yield Step(
            name=f"high: open {label}",
            prepare=lambda: [client.seal(**head, plaintext=plaintext) for _ in range(BATCH)],
            act=lambda given: server.open(**head, sequence=given[0], ciphertext=given[1]),
            is_right=lambda opened: opened == plaintext,
        )

    return [step for label, size in SIZES.items() for step in make_steps(label, os.urandom(size))]


def make_signature_step() -> Step:
    """Verifying a command's signature, with what is kept as evidence and against replay."""
    from protocol.domain.messages import SecurityLevel  # noqa: PLC0415  # Django is set up first
    from protocol.domain.signed import SignedMessage  # noqa: PLC0415  # as above
    from security.domain.command_signatures import SessionVerifier  # noqa: PLC0415  # as above
    from security.domain.signatures import CommandPublicKey, make_key_id, make_lines, sign  # noqa: PLC0415  # as above
    from tests.factories import make_principal  # noqa: PLC0415  # as above

    private_key = Ed25519PrivateKey.generate()
    public_key = private_key.public_key().public_bytes_raw()
    key_id = make_key_id(public_key)
    principal = replace(make_principal(), command_keys=(CommandPublicKey(key_id=key_id, public_key=public_key),))
    session_id, payload = uuid.uuid4(), os.urandom(400)
    verifiers = [SessionVerifier(session_id=session_id)]

    def prepare() -> list[tuple[SignedMessage, datetime]]:
        # A verifier remembers a minute of signatures, at a rate that no session has.
        verifiers[0] = SessionVerifier(session_id=session_id)
        now = datetime.now(UTC)
        timestamp = now.isoformat()
        signed = []
        for _ in range(BATCH):
            message_id = str(uuid.uuid4())
            lines = make_lines(
                session_id=str(session_id),
                message_id=message_id,
                message_type="command",
                timestamp=timestamp,
                security_level="critical",
                payload=payload,
                metadata=b"",
            )
            message = SignedMessage(
                message_id=message_id,
                message_type="command",
                timestamp=timestamp,
                signed_at=now,
                security_level=SecurityLevel.CRITICAL,
                payload=payload,
                metadata=b"",
                signature=sign(data=lines.encode(), key_id=key_id, private_key=private_key),
            )
            signed.append((message, now + timedelta(seconds=1)))
        return signed

    return Step(
        name="critical: verify a signature, 400 B",
        prepare=prepare,
        act=lambda given: verifiers[0].verify(principal=principal, signed=given[0], now=given[1]),
        is_right=lambda evidence: isinstance(evidence, dict) and bool(evidence),
    )


def make_denial_step() -> Step:
    """A source's first denial, until it is on record and may be told."""
    from protocol.ports import Denial, Door  # noqa: PLC0415  # Django is set up first
    from security.models import AuditEvent  # noqa: PLC0415  # as above
    from security.services.denials import DenialRecorder  # noqa: PLC0415  # as above

    recorder, numbers = DenialRecorder(), iter(range(1 << 24))

    def make_denial() -> Denial:
        address = (10 << 24) + next(numbers)
        return Denial(
            code="security.access_denied",
            door=Door.HTTP,
            remote_address=".".join(str(byte) for byte in address.to_bytes(4)),
            principal=None,
            kind="request",
            subject="GET /",
        )

    def act(denial: Denial) -> bool:
        recorder.submit(denial).result()
        return True

    def is_right(told: object) -> bool:
        return told is True and AuditEvent.objects.filter(action="access.deny").exists()

    return Step(
        name="a first denial, on record",
        prepare=lambda: [make_denial() for _ in range(DENIAL_BATCH)],
        act=act,
        is_right=is_right,
    )


def measure_pings(*, seconds: float, warm_up: float, repeats: int, patience: float) -> list[LoadResult]:
    """Whole pings at each level, of a product that is started for it.

    Raises:
        LoadFailed, ProductError: something did not work; nothing is left running.
    """
    connections, in_flight = SEALED_LOAD
    with install_product({}) as product:
        product.start()
        seed = product.register_signing_key()
        target = Target(url=product.websocket_url, key=product.key, roles=dict(product.find_roles()), signing_seed=seed)
        loads = [
            Load(
                workload=Workload.PING,
                connections=connections,
                in_flight=in_flight,
                level=level,
                seconds=seconds,
                warm_up_seconds=warm_up,
            )
            for level in Level
        ]
        results = measure_loads(target, loads, repeats=repeats, patience_seconds=patience)
        product.stop()
    return results


def list_figures(report: SecurityReport) -> list[tuple[str, float]]:
    """What each step and each whole ping takes, in CPU-µs."""
    return [
        *((step.name, step.cpu_us) for step in report.steps),
        *((f"a whole ping at {result.level.value}", result.median.cpu_us["web"]) for result in report.ping),
    ]


def draw(report: SecurityReport, *, path: Path) -> None:
    """The figures as bars, on a scale of powers of ten."""
    mpl.use("agg")
    figures = list_figures(report)[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(figures) + 1.2))
    bars = axes.barh(
        [name for name, _ in figures],
        [value for _, value in figures],
        color=[ORANGE if name.startswith("a whole ping") else BLUE for name, _ in figures],
    )
    axes.bar_label(bars, labels=[f"{value:.3g}" for _, value in figures], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("CPU-µs")
    axes.spines[["top", "right"]].set_visible(False)
    machine = report.machine
    figure.suptitle(
        f"{machine['cores']} x {machine['cpu']}, {machine['python']} · commit {(report.commit or 'none')[:12]} · "
        f"{report.taken_at:%Y-%m-%d}",
        fontsize=9,
        color=GREY,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 where the product failed or an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks security", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window (default %(default)s)")
    parser.add_argument("--warm-up", type=float, default=2.0, metavar="SECONDS", help="before each window of pings")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="windows of each; shows medians")
    parser.add_argument("--patience", type=float, default=0.0, metavar="SECONDS", help="for the machine to be idle")
    parser.add_argument("--output", type=Path, default=RESULT, help="the JSON file; the picture is laid beside it")
    options = parser.parse_args(arguments)
    commit, has_local_changes = read_commit(PROJECT_ROOT)
    try:
        ping = measure_pings(
            seconds=options.seconds, warm_up=options.warm_up, repeats=options.repeat, patience=options.patience
        )
        with open_steps() as steps:
            measured = measure_steps(steps, seconds=options.seconds, repeats=options.repeat, patience=options.patience)
    except (AnswerWrong, LoadFailed, ProductError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = SecurityReport(
        command=shlex.join(["python", "-m", "benchmarks", "security", *arguments]),
        taken_at=get_now(),
        machine=describe_machine(),
        versions=list_versions(),
        commit=commit,
        has_local_changes=has_local_changes,
        steps=measured,
        ping=ping,
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    draw(report, path=options.output.with_suffix(".png"))
    print(*(f"{name}: {value}" for name, value in report.machine.items()), sep="\n")
    print(*(f"{name} {version}" for name, version in report.versions.items()), sep=", ")
    print("\nCPU-µs")
    for name, value in list_figures(report):
        print(f"{value:10.1f}  {name}")
    print(f"\n{options.output}\n{options.output.with_suffix('.png')}")
    return 1 if any(result.errors for result in ping) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

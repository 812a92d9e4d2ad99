"""Secrets that went through every door, at the level `debug` and with what fails: nowhere are they found afterwards."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
import re
import secrets
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection
from redis import Redis
from websockets.exceptions import ConnectionClosed

from mcp_site.settings.sockets import choose_broker_socket
from tests.client import Client, Encoding, open_client
from tests.services import PROJECT_ROOT, Product, run_product, wait_until

pytestmark = [pytest.mark.own_web_server, pytest.mark.xdist_group("secrets")]

CSRF: Final = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
CLOSED_PORT: Final = 1
"""Nobody listens there."""

MAKE: Final = """
import base64, json, sys
from django.utils import timezone
from security import services
from security.domain.second_factor import get_step, make_code
from security.models import Account, AuthenticatorApp
from security.selectors import get_account_principal

given = json.loads(sys.stdin.read())
boss = services.create_account(
    username="leaky-boss", password=given["boss"], roles=["operator"], is_staff=True, is_superuser=True
)
holder = services.create_account(username="leaky-holder", password=given["holder"], roles=["agent"], is_staff=True)
agent = services.create_account(username="leaky-agent", kind=Account.Kind.SERVICE, roles=["agent", "operator"])
app = services.begin_enrolment(account=holder)
secret = AuthenticatorApp.objects.get(id=app).secret
code = make_code(secret=secret, step=get_step(now=timezone.now()))
by = get_account_principal(account=holder)
codes = services.confirm_enrolment(account=holder, app_id=app, code=code, principal=by, trace_id="")
pending = services.begin_enrolment(account=boss)
print(json.dumps({
    "key": services.issue_api_key(account=agent, name="leaky", scopes=()).secret,
    "totp": base64.b32encode(secret).decode().rstrip("="),
    "pending": base64.b32encode(AuthenticatorApp.objects.get(id=pending).secret).decode().rstrip("="),
    "recovery": codes,
}))
"""


def make_password(what: str) -> str:
    return f"planted-{what}-{secrets.token_hex(8)}"


@dataclass(kw_only=True)
class Plants:
    """What was sent in, by what it is."""

    values: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, value: str) -> str:
        self.values[what] = value
        return value

    def find_in(self, text: str | bytes) -> list[str]:
        """What of it stands there: as it is, as HTML, in a URL, as raw bytes."""
        haystack = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        return [
            what
            for what, value in self.values.items()
            if any(form.encode() in haystack for form in {value, html.escape(value), quote(value, safe="")})
        ]


@dataclass(kw_only=True)
class Scene:
    product: Product
    plants: Plants
    answers: list[str] = field(default_factory=list)
    """What was answered to whom asked with a secret."""
    broker: list[str] = field(default_factory=list)
    """All that went to the broker."""
    session_cookie: str = ""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A product through whose doors all of it went."""
    plants = Plants()
    master_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    variables = {
        "MCP_APPS": "tests.leaky",
        "MCP_LOG_LEVEL": "debug",
        "MCP_DEBUG": "1",
        "MCP_SECRET_KEY": plants.add("secret key", secrets.token_urlsafe(64)),
        "MCP_MASTER_KEY": plants.add("master key", master_key),
        "MCP_SIGN_INS_PER_MINUTE": "100000",
    }
    with run_product(tmp_path_factory.mktemp("leaky") / "var", **variables) as product:
        scene = Scene(product=product, plants=plants)
        with watch_broker(scene):
            send_all(scene)
        yield scene


def watch_broker(scene: Scene) -> Any:
    """Note every command that the embedded broker gets meanwhile."""
    socket = choose_broker_socket(scene.product.data_dir)

    class Watch:
        def __enter__(self) -> None:
            self.mark = uuid.uuid4().hex
            self.client = Redis(unix_socket_path=str(socket))
            self.monitor = self.client.monitor().__enter__()  # type: ignore[no-untyped-call]  # of the library
            self.thread = threading.Thread(target=self.read, daemon=True)
            self.thread.start()

        def read(self) -> None:
            for each in self.monitor.listen():
                scene.broker.append(str(each["command"]))
                if self.mark in scene.broker[-1]:
                    return

        def __exit__(self, *_: object) -> None:
            keeper = Redis(unix_socket_path=str(socket))
            keeper.echo(self.mark)
            self.thread.join(20)
            scene.broker += [str(keeper.dump(key)) for key in keeper.scan_iter()]
            scene.broker += [str(key) for key in keeper.scan_iter()]

    return Watch()


def send_all(scene: Scene) -> None:
    product, plants = scene.product, scene.plants
    given = {name: plants.add(f"password of {name}", make_password(name)) for name in ("boss", "holder")}
    made = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", MAKE],
        cwd=PROJECT_ROOT,
        env=product.environment,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout.splitlines()[-1])
    assert plants.find_in(made.stderr) == []
    plants.add("API key", found["key"])
    plants.add("authenticator secret", found["totp"])
    plants.add("secret of the app being set up", found["pending"])
    for number, code in enumerate(found["recovery"]):
        plants.add(f"recovery code {number}", code)
    send_over_rest(scene, given)
    asyncio.run(send_over_sockets(scene, given))
    send_over_console(scene, given)
    register_private_key(scene)


def send_over_rest(scene: Scene, given: dict[str, str]) -> None:
    plants, key = scene.plants, scene.plants.values["API key"]
    wrong_key = plants.add("wrong API key", f"mcp_{secrets.token_urlsafe(32)}")
    wrong_password = plants.add("wrong password over REST", make_password("wrong-rest"))
    odd = plants.add("password in broken JSON", make_password("broken"))
    held = plants.add("argument that a command held", make_password("held"))
    said = plants.add("argument that an exception said", make_password("said"))
    with httpx2.Client(base_url=f"{scene.product.url}api/v1/", timeout=30) as api:

        def post(path: str, body: Any, **headers: str) -> Any:
            content = body if isinstance(body, str) else json.dumps(body)
            answer = api.post(path, content=content, headers={"Content-Type": "application/json", **headers})
            scene.answers.append(answer.text)
            return answer

        # What is asked for is told: the answer is not looked at.
        pair = api.post("auth/token/", json={"key": key}).json()
        plants.add("access token", pair["access"])
        plants.add("refresh token", pair["refresh"])
        fresh = api.post("auth/refresh/", json={"refresh": pair["refresh"]}).json()
        plants.add("second access token", fresh["access"])
        plants.add("second refresh token", fresh["refresh"])
        changed = plants.add("changed token", fresh["access"][:-6] + secrets.token_hex(3))
        bearer = {"Authorization": f"Bearer {fresh['access']}"}
        post("auth/token/", {"key": wrong_key})
        post("auth/token/", {"username": "leaky-boss", "password": wrong_password})
        post("auth/token/", {"username": wrong_password, "password": given["boss"]})
        post("auth/token/", {"username": "leaky-holder", "password": given["holder"], "code": "000000"})
        post("auth/token/", {wrong_key: 1})
        post("auth/token/", f'{{"username": "leaky-boss", "password": "{odd}"')
        post("auth/refresh/", {"refresh": changed})
        post("auth/revoke/", {"token": changed})
        for value in (f"Bearer {wrong_key}", f"Bearer {changed}", f"Basic {wrong_password}", wrong_key):
            scene.answers.append(api.get("tools/", headers={"Authorization": value}).text)
        scene.answers.append(api.get("tools/", params={"token": changed, "cursor": wrong_key}, headers=bearer).text)
        # Wrong addresses with a secret in them.
        api.get(f"tools/{wrong_key}/", headers=bearer)
        api.get(f"nothing/{changed}")
        for command, arguments in {
            "leaky.hold": {"secret": held, "token": key},
            "leaky.say": {"secret": said, "token": f"redis://:{said}@cache.invalid/0 {key} {fresh['access']}"},
            "leaky.ask": {"secret": held},
            "leaky.nothing": {"secret": held},
        }.items():
            envelope = {
                "id": uuid.uuid4().hex,
                "type": "command",
                "payload": {"command": command, "arguments": arguments},
                "timestamp": "2026-11-20T16:31:00.123Z",
            }
            post("messages/", envelope, **bearer)
            post("messages/", {**envelope, "security": {"auth_token": wrong_key}})
        used = plants.add("input of a tool that failed", make_password("input"))
        ran = api.post("tools/leaky.use/execute/?wait=30", json={"input": {"secret": used}}, headers=bearer)
        assert ran.json()["code"] == "tool.execution_failed"
        scene.answers.append(ran.text)


async def send_over_sockets(scene: Scene, given: dict[str, str]) -> None:
    plants, key = scene.plants, scene.plants.values["API key"]
    wrong_key, wrong_password = plants.values["wrong API key"], make_password("wrong-socket")
    plants.add("wrong password on the socket", wrong_password)
    resume = plants.add("resume token", secrets.token_urlsafe(32))
    for encoding in Encoding:
        async with open_client(scene.product.websocket_url, encoding=encoding) as client:
            await client.shake_hands()
            for credentials in (
                {"method": "api_key", "key": wrong_key},
                {"method": "jwt", "token": plants.values["changed token"]},
                {"method": "password", "username": "leaky-boss", "password": wrong_password},
                {"method": "password", "username": wrong_password, "password": "x"},
                {"method": "password", "username": "leaky-holder", "password": given["holder"], "code": "123456"},
                {"method": "password", "username": "leaky-boss", "password": [wrong_password]},
                {"method": "api_key", "key": key, wrong_key: "1"},
                {"method": wrong_key},
            ):
                await client.show(**credentials)
            await client.authenticate(key)
            for command in ("leaky.hold", "leaky.say", "leaky.ask"):
                secret = plants.values["argument that a command held"]
                await client.call(command, {"secret": secret, "token": key})
            scene.answers += [str(message.payload) for message in client.received]
        async with open_client(scene.product.websocket_url, encoding=encoding) as client:
            await send_nonsense(client, key=wrong_key, resume=resume)
            scene.answers += [str(message.payload) for message in client.received]


async def send_nonsense(client: Client, *, key: str, resume: str) -> None:
    """Frames that are none, with keys in them."""
    await client.shake_hands(resume={"session_id": key, "resume_token": resume, "last_sequence": 1})
    await client.send("authentication", {"method": "api_key", "key": key, "more": key})
    await client.send(key, {})  # as the type
    await client.send_value({"id": "a", "type": "command", key: key})
    await client.send_value([key, key])
    if client.encoding is Encoding.JSON:
        await client.send_text(f'{{"id": "x", "payload": {{"key": "{key}"')
        await client.send_binary(key.encode())
    else:
        await client.send_binary(key.encode())
    await client.send_value(key)
    # All of it was answered by now, unless the server hung up on it.
    with contextlib.suppress(ConnectionClosed):
        await client.wait_for_reply(await client.send("heartbeat", {}))


def send_over_console(scene: Scene, given: dict[str, str]) -> None:
    plants = scene.plants
    wrong = plants.add("wrong password in the console", make_password("wrong-console"))
    new = plants.add("new password", make_password("new"))
    other = plants.add("password set for another", make_password("other"))
    with make_browser(scene) as browser:
        submit(browser, "admin/login/", username="leaky-boss", password=wrong)
        submit(browser, "admin/login/", username=wrong, password=wrong)
        submit(browser, "admin/login/", username="leaky-holder", password=given["holder"])
        submit(browser, "admin/second-factor/sign-in/", code="000000")
        # A recovery code is right once.
        submit(browser, "admin/second-factor/sign-in/", code=plants.values["recovery code 0"])
    with make_browser(scene) as browser:
        submit(browser, "admin/login/", username="leaky-boss", password=given["boss"])
        scene.session_cookie = plants.add("session cookie", browser.cookies["mcp_session"])
        submit(browser, "admin/password_change/", old_password=wrong, new_password1=new, new_password2=new)
        submit(browser, "admin/password_change/", old_password=given["boss"], new_password1=new, new_password2=new)
        submit(
            browser,
            "admin/security/account/add/",
            username="leaky-new",
            kind="person",
            usable_password="true",
            password1=other,
            password2=other,
        )
        browser.get(f"admin/nothing/{plants.values['wrong API key']}/")
        browser.get("admin/tools/tool/", params={"q": plants.values["wrong API key"]})
        plants.add("session cookie after", browser.cookies["mcp_session"])


def make_browser(scene: Scene) -> httpx2.Client:
    return httpx2.Client(base_url=scene.product.url, timeout=30, follow_redirects=True)


def submit(browser: httpx2.Client, path: str, **form: str) -> str:
    """The page that answers the form."""
    page = browser.get(path)
    token = CSRF.search(page.text)
    assert token is not None, (path, page.status_code)
    answer = browser.post(
        str(page.url), data={**form, "csrfmiddlewaretoken": token[1]}, headers={"Referer": str(page.url)}
    )
    return answer.text


def register_private_key(scene: Scene) -> None:
    """The wrong half, by mistake."""
    private = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    body = scene.plants.add("private command key", private.decode().splitlines()[1])
    done = subprocess.run(
        [sys.executable, "manage.py", "register_command_key", "leaky-agent", "-"],
        cwd=PROJECT_ROOT,
        env=scene.product.environment,
        input=private.decode(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode != 0
    assert body not in done.stdout + done.stderr


def read_logs(scene: Scene) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in Path(scene.product.data_dir, "log").iterdir()}
    assert {"web.1.log", "worker.log", "scheduler.log"} <= set(files), sorted(files)
    return {**files, "output": scene.product.output.encode()}


def test_logs_and_output_hold_none(scene: Scene) -> None:
    logs = read_logs(scene)
    # They did fail, and that was told.
    assert logs["web.1.log"].count(b"nobody expected it") >= 2
    assert b"nobody expected it" in logs["worker.log"]
    assert {name: scene.plants.find_in(text) for name, text in logs.items() if scene.plants.find_in(text)} == {}


def test_error_answers_hold_none(scene: Scene) -> None:
    assert len(scene.answers) > 40
    assert [(found, text[:200]) for text in scene.answers if (found := scene.plants.find_in(text))] == []


def test_the_broker_gets_none(scene: Scene) -> None:
    assert len(scene.broker) > 50
    assert [(found, text[:200]) for text in scene.broker if (found := scene.plants.find_in(text))] == []


def test_the_database_holds_none_in_plain_text(scene: Scene) -> None:
    """But what a tool was given: inputs and outputs of runs are kept, and shown to who may see the run."""
    files = list(scene.product.data_dir.glob("db.sqlite3*"))
    if connection.vendor == "postgresql":
        pytest.skip("the server's files are not ours to read")
    assert files
    for path in files:
        assert set(scene.plants.find_in(path.read_bytes())) <= {"input of a tool that failed"}
    secret = scene.plants.values["authenticator secret"]
    raw = base64.b32decode(secret + "=" * (-len(secret) % 8))
    assert all(raw not in path.read_bytes() for path in files)


def test_titles_of_processes_hold_none(scene: Scene) -> None:
    lines = [" ".join(process.cmdline()) for process in scene.product.list_processes()]
    assert len(lines) >= 4
    assert scene.plants.find_in("\n".join(lines)) == []


def test_the_audit_record_and_its_export_hold_none(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    done = scene.product.manage("export_audit", "--output", str(path))
    exported = path.read_text() if path.exists() else done.stdout
    assert done.returncode == 0, done.stderr
    assert exported.count("\n") > 20
    assert scene.plants.find_in(exported + done.stderr) == []


def test_no_page_of_the_console_shows_one(scene: Scene) -> None:
    """Lists, forms, histories and own pages, by everybody who may see everything."""
    plants = scene.plants
    allowed = {"input of a tool that failed"}
    with make_browser(scene) as browser:
        submit(browser, "admin/login/", username="leaky-boss", password=plants.values["new password"])
        seen: dict[str, str] = {}
        waiting = ["/admin/"]
        while waiting and len(seen) < 250:
            address = waiting.pop()
            if address in seen or is_left_out(address, seen):
                continue
            page = browser.get(address.lstrip("/"))
            seen[address] = page.text
            waiting += [
                html.unescape(link).partition("#")[0] for link in re.findall(r'href="(/admin/[^"#]*)', page.text)
            ]
            assert page.status_code < 500, address
    assert len(seen) > 60
    wrong = {address: set(plants.find_in(text)) - allowed for address, text in seen.items()}
    assert {address: found for address, found in wrong.items() if found} == {}


def is_left_out(address: str, seen: dict[str, str]) -> bool:
    """What signs out, shows a new secret to its owner, or is one of many alike."""
    if "logout" in address or "/second-factor" in address or "?" in address:
        return True
    alike = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|/\d+/", "/ID/", address)
    return sum(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|/\d+/", "/ID/", other) == alike for other in seen) >= 4


# With external services whose URLs have passwords


@pytest.mark.parametrize("arguments", [["check", "--database", "default"], ["migrate"], ["serve", "prepare"]])
def test_passwords_of_services_that_do_not_answer_are_not_told(tmp_path: Path, arguments: list[str]) -> None:
    plants = Plants()
    product = Product(data_dir=tmp_path / "var", variables=make_external(plants))
    done = product.manage(*arguments)
    assert plants.find_in(done.stdout + done.stderr) == []


def test_a_worker_that_finds_no_broker_does_not_tell_its_password(tmp_path: Path) -> None:
    plants = Plants()
    variables = make_external(plants)
    del variables["DATABASE_URL"]
    product = Product(data_dir=tmp_path / "var", variables=variables)
    assert product.manage("serve", "prepare").returncode == 0
    try:
        product.spawn([sys.executable, "manage.py", "serve", "worker"])
        wait_until(lambda: "annot connect" in product.output, seconds=60, what="the worker's complaint")
        assert plants.find_in(product.output) == []
        lines = [" ".join(process.cmdline()) for process in product.list_processes()]
        assert plants.find_in("\n".join(lines)) == []
    finally:
        product.kill()


def make_external(plants: Plants) -> dict[str, str]:
    database, cache, broker = (
        plants.add(f"password of {name}", make_password(name)) for name in ("db", "cache", "broker")
    )
    return {
        "MCP_LOG_LEVEL": "debug",
        "MCP_SECRET_KEY": plants.add("secret key", secrets.token_urlsafe(64)),
        "MCP_MASTER_KEY": plants.add(
            "master key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        ),
        "DATABASE_URL": f"postgresql://mcp:{database}@127.0.0.1:{CLOSED_PORT}/mcp",
        "REDIS_URL": f"redis://mcp:{cache}@127.0.0.1:{CLOSED_PORT}/0",
        "CELERY_BROKER_URL": f"redis://mcp:{broker}@127.0.0.1:{CLOSED_PORT}/1",
    }

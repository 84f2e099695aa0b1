"""What the guard lets through, and what it does not, byte by byte as a client could send it."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from lcg.app.guard import BODY_BYTES, Guard, is_loopback


async def _page(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body that it was given."""
    body, more = b"", scope["type"] == "http" and scope["method"] == "POST"
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(
    guard: Guard, path: str, method: str = "GET", body: bytes | list[bytes] = b"", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of what is answered to a path as it stands in the request line."""
    raw = path.encode("latin-1").partition(b"?")[0]
    given = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    parts = [body] if isinstance(body, bytes) else list(body)
    if method == "POST" and "content-length" not in given:
        given["content-length"] = str(sum(map(len, parts)))
    scope = {
        "type": "http",
        "method": method,
        "path": unquote_to_bytes(raw).decode("utf-8", errors="replace"),
        "raw_path": raw,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0) if parts else b"", "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]), found


GUARD = Guard(_page)
JOIN = "/gradio_api/queue/join"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/theme.css",
        "/assets/index-DphvyggB.js",
        "/static/fonts/a_b/c-d.woff2",
        "/gradio_api/queue/data",
        "/gradio_api/heartbeat/4fk2m9x0q",
        "/reports/0",
    ],
)
def test_what_the_page_needs_is_there(path: str) -> None:
    assert ask(GUARD, path)[0] == 200


HOSTILE = [
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=../../../../etc/passwd",
    "/gradio_api/file=..%2f..%2fetc%2fpasswd",
    "/gradio_api/file=%2Fetc%2Fpasswd",
    "/gradio_api/file=file:///etc/passwd",
    "/gradio_api/file=http://127.0.0.1:1/",
    "/gradio_api/file=https://example.com/a.png",
    "/gradio_api/file=C:%5Cwindows%5Cwin.ini",
    "/gradio_api/file/etc/passwd",
    "/file=/etc/passwd",
    "/gradio_api/proxy=http://169.254.169.254/latest/meta-data",
    "/gradio_api/proxy=https://example.com",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/gradio_api/custom_component/html/client/../../../../etc/passwd",
    "/gradio_api/custom_component/html/client/index/style.css",
    "/gradio_api/stream/a/b/1/playlist.m3u8",
    "/gradio_api/deep_link",
    "/gradio_api/runs",
    "/gradio_api/openapi.json",
    "/gradio_api/vibe-code",
    "/gradio_api/process_recording",
    "/monitoring",
    "/docs",
    "/login",
    "/svelte/index.js",
    "/static/../../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/etc/passwd",
    "/static/..%2f..%2fetc/passwd",
    "/static/..%5c..%5cetc/passwd",
    "/static/%252e%252e/etc/passwd",
    "/static//etc/passwd",
    "/static/img/a%00.png",
    "/assets/..",
    "/assets/../index.html",
    "/reports/../etc/passwd",
    "/reports/-1",
    "/reports/0/",
    "/reports/1e3",
    "/reports/%30%00",
    "/reports/99999",
    "//example.com/",
    "/\u00e9",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_whatever_else_is_asked_for_does_not_exist(path: str) -> None:
    assert ask(GUARD, path)[:2] == (404, b"not found")


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/run/0", "/gradio_api/call/x", "/login", "/"])
def test_nothing_is_written_elsewhere(path: str) -> None:
    assert ask(GUARD, path, "POST", b"{}")[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(method: str) -> None:
    assert ask(GUARD, "/", method)[0] == 405


def test_a_message_arrives_as_it_was_sent_whatever_it_was_cut_into() -> None:
    body = json.dumps({"data": ["x" * 1000], "session_hash": "a"}).encode()
    assert ask(GUARD, JOIN, "POST", [body[:10], body[10:700], body[700:]])[:2] == (200, body)


@pytest.mark.parametrize(
    "data",
    [
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}},
        {"path": "a", "url": "http://169.254.169.254/", "meta": {"_type": "gradio.FileData"}},
        [{"deep": [{"path": "file:///etc/passwd", "meta": {"_type": "gradio.FileData"}}]}],
    ],
)
def test_a_message_that_names_a_file_is_refused(data: Any) -> None:
    body = json.dumps({"data": [data], "session_hash": "a"}).replace("gradio.F", "gradio.\\u0046").encode()
    assert ask(GUARD, JOIN, "POST", body)[:2] == (400, b"this page takes no files by name")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b'{"a": nope}'])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert ask(GUARD, JOIN, "POST", body)[:2] == (400, b"expected JSON")


def test_a_body_is_bounded_whether_or_not_its_length_is_declared() -> None:
    declared = ask(GUARD, JOIN, "POST", b"{}", content_length=str(BODY_BYTES + 1))
    assert declared[0] == 413 and b"a request may have" in declared[1]
    chunks = [b"x" * 2**20] * (BODY_BYTES // 2**20 + 2)
    assert ask(GUARD, JOIN, "POST", chunks, content_length="0")[0] == 413
    assert ask(GUARD, JOIN, "POST", b"{}", content_length="-1")[0] == 413
    assert ask(GUARD, JOIN, "POST", b"{}", content_length="2")[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.8.9.1"])
def test_this_machine_answers_to_its_own_names(host: str) -> None:
    assert ask(GUARD, "/", host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example:7860", "127.0.0.1.evil.example", "", "0.0.0.0", "localhost.evil.example"]
)
def test_a_name_rebound_to_this_machine_is_refused(host: str) -> None:
    assert ask(GUARD, "/", host=host)[:2] == (421, b"this page answers to localhost only")


def test_a_server_for_the_network_answers_to_any_name() -> None:
    assert ask(Guard(_page, loopback=False), "/", host="lab-7.example:7860")[0] == 200


def test_messages_from_other_sites_are_refused() -> None:
    assert ask(GUARD, JOIN, "POST", b"{}", origin="http://127.0.0.1:7860")[0] == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1:8000"):
        assert ask(GUARD, JOIN, "POST", b"{}", origin=origin)[:2] == (403, b"this request comes from another site")
    assert ask(GUARD, JOIN, "POST", b"{}", sec_fetch_site="cross-site")[0] == 403


def test_a_password_is_asked_for_and_known() -> None:
    guard = Guard(_page, password="süß:1")

    def told(password: str) -> str:
        return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()

    status, body, headers = ask(guard, "/")
    assert (status, body) == (401, b"a password, please") and headers["www-authenticate"].startswith("Basic")
    assert ask(guard, "/", authorization=told("süß:1"))[0] == 200
    for wrong in (told("süß"), told(""), "Basic ???", "Bearer süß:1".encode().decode("latin-1"), "Basic"):
        assert ask(guard, "/", authorization=wrong)[0] == 401


def test_every_answer_has_the_headers_also_a_refusal() -> None:
    for path in ("/", "/etc/passwd"):
        headers = ask(GUARD, path)[2]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "SAMEORIGIN"
        assert "default-src 'self'" in headers["content-security-policy"]


def test_websockets_are_closed() -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(GUARD({"type": "websocket", "path": "/", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_loopback_is_known_by_name_and_by_number() -> None:
    assert all(map(is_loopback, ["localhost", "LocalHost.", "127.0.0.1", "127.1.2.3", "::1"]))
    assert not any(map(is_loopback, ["", "0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com"]))

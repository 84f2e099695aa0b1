"""What stands before the page: who may ask, for what, and how much at once.

Gradio serves more than this page needs: a proxy, files of the server by path or from a URL, uploads, its own API pages.
Here is the list of what the page does need; everything else does not exist. Images come and go within messages, so that
no request names a file, and none that does is let through. A request comes from the page itself and not from another
site's (by Host, so that a name rebound to this machine is refused, and by Origin), and is bounded in size.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 12 * 2**20
"""Of one request: an image file of 8 MiB as base64, and what is wrapped around it."""
FILE = "gradio.FileData"
"""What Gradio marks the objects of a message by that stand for a file, by path or by URL."""

ID = r"[A-Za-z0-9_-]{1,64}"
ASSET = r"(?:[A-Za-z0-9_@-]+/)*[A-Za-z0-9_@.-]+"  # no part is `..`, since the list comes after the check for it
READ = re.compile(
    rf"""/ | /theme\.css | /favicon\.ico | /manifest\.json | /robots\.txt | /assets/{ASSET} | /static/{ASSET}
    | /gradio_api/(?: startup-events | heartbeat/{ID} | queue/data ) | /config
    | /reports/\d{{1,4}}""",
    re.VERBOSE,
)
WRITE = re.compile(r"/gradio_api/(?:queue/join|component_server|cancel|reset)/?")

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
POLICY = (  # Gradio compiles templates and puts styles and scripts into the page
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


class Refused(Exception):
    """A request that is answered by a status and a word, and by nothing else.

    Args:
        status: of HTTP.
        reason: for whoever looks.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Guard:
    """The page behind its guard, an ASGI application.

    Args:
        app: the page.
        loopback: whether the server is bound to this machine only, so that no other name for it is believed.
        password: what a browser has to know; any user name goes with it. None for none.
    """

    app: ASGIApp
    loopback: bool = True
    password: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("content-security-policy", POLICY)
            await send(message)

        try:
            self._check(scope)
            if scope["method"] == "POST":
                receive = await self._body(scope, receive)
        except Refused as refused:
            headers = {"WWW-Authenticate": 'Basic realm="lcg", charset="UTF-8"'} if refused.status == 401 else None
            await PlainTextResponse(refused.reason, refused.status, headers)(scope, receive, sealed)
            return
        await self.app(scope, receive, sealed)

    def _check(self, scope: Scope) -> None:
        """Raises Refused for what can be told from the first lines of a request."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        host = headers.get("host", "")
        if self.loopback and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            raise Refused(421, "this page answers to localhost only")
        if self.password is not None and not _knows(headers.get("authorization", ""), self.password):
            raise Refused(401, "a password, please")
        if method not in ("GET", "HEAD", "POST"):
            raise Refused(405, "no such method")
        listed = (WRITE if method == "POST" else READ).fullmatch(path)
        if listed is None or not _plain(scope):
            raise Refused(404, "not found")
        if method == "POST":
            origin = headers.get("origin")
            if (origin and urlsplit(origin).netloc != host) or headers.get("sec-fetch-site") == "cross-site":
                raise Refused(403, "this request comes from another site")

    async def _body(self, scope: Scope, receive: Receive) -> Receive:
        """The body once more, after a look at it. Raises Refused when it is too large, or names what it must not."""
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > BODY_BYTES:
            raise Refused(413, f"a request may have {BODY_BYTES} bytes")
        parts, size, more = list[bytes](), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "cut off")
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > BODY_BYTES:
                raise Refused(413, f"a request may have {BODY_BYTES} bytes")
        body = b"".join(parts)
        _check_message(body)
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again


def _check_message(body: bytes) -> None:
    """Raises Refused for a body that is not JSON, or speaks of a file."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "expected JSON") from error
    for entry in _objects(message):
        meta = entry.get("meta")
        if isinstance(meta, dict) and meta.get("_type") == FILE:
            raise Refused(400, "this page takes no files by name")


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of the machine itself, seen from the machine itself."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(scope: Scope) -> bool:
    """Whether a path means what it says: no way up, nothing encoded twice, nothing that ends a string."""
    path, raw = scope["path"], scope.get("raw_path") or b""
    strange = "\0" in path or "\\" in path or re.search(rb"%25|%00|%5c|%2e", raw, re.IGNORECASE)
    return not strange and ".." not in path.split("/") and "//" not in path


def _knows(authorization: str, password: str) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        told = base64.b64decode(encoded, validate=True).partition(b":")[2]
    except ValueError:
        return False
    return hmac.compare_digest(told, password.encode())


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value, without recursion, however deep it is."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            yield value
            rest += value.values()
        elif isinstance(value, list):
            rest += value

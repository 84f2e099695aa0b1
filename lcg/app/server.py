"""The page as an ASGI application, and the process that serves it.

    GET /                  the page, by Gradio, whose own routes are few and listed in `lcg.app.guard`
    GET /reports/NUMBER    a report of a past benchmark, which loads nothing and in which no script runs

Nothing is asked of another server: no telemetry, no check for a newer version, no font. Nothing that a browser sends
is written to disk; what Gradio might write lies in a folder of this process, which goes when the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # seconds: imported when the environment is set
    import gradio as gr
    from starlette.types import ASGIApp

    from lcg.app.reports import Reports

HERE = Path(__file__).parent
ENVIRONMENT = {
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",  # no table of all past events after every one of them
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
"""What Gradio is told before it is imported."""
NEXT_PORTS = 100
"""Ports after a taken one among which a free one is looked for."""
PATIENCE = 1
"""Seconds that open pages are given when the server ends."""
REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"


@contextlib.contextmanager
def alone() -> Iterator[Path]:
    """Sets Gradio's environment; its folder is this process's own, nobody else can read it, and it is removed."""
    with tempfile.TemporaryDirectory(prefix="lcg-app-", ignore_cleanup_errors=True) as folder:
        path = Path(folder).resolve()
        before = dict(os.environ)
        os.environ.update(ENVIRONMENT, GRADIO_TEMP_DIR=str(path))
        try:
            yield path
        finally:
            for name in (*ENVIRONMENT, "GRADIO_TEMP_DIR"):
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        OSError: the port is taken, or not this user's to take; the message names one that is free.
        ValueError: there is no such port, or no such address on this machine.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"`port` must be 0 (any free one) to 65535, got {port}; 7860 is usual")
    try:
        return _bound(host, port)
    except socket.gaierror as error:
        raise ValueError(
            f"`host` must be an address of this machine, such as 127.0.0.1, got {host!r}: {error.strerror}"
        ) from error
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise ValueError(
                f"`host` must be an address of this machine, such as 127.0.0.1, got {host!r}: {error.strerror}"
            ) from error
        what = "taken" if error.errno == errno.EADDRINUSE else "not yours to take"
        free = _free(host, max(port + 1, 1024))
        raise OSError(f"port {port} of {host} is {what}; --port {free} is free, and --port 0 takes any") from error


def _free(host: str, first: int) -> int:
    """The next free port, or 0."""
    for port in range(first, min(first + NEXT_PORTS, 65536)):
        with contextlib.suppress(OSError):
            _bound(host, port).close()
            return port
    return 0


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # so that it can be taken again at once; elsewhere this would share it with others
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError:
        bound.close()
        raise
    return bound


def application(page: gr.Blocks, reports: Reports, loopback: bool = True, password: str | None = None) -> ASGIApp:
    """The page behind its guard.

    Args:
        page: as `lcg.app.interface.interface` makes it.
        reports: of past benchmarks.
        loopback: whether only this machine can reach the server.
        password: what a browser has to know, None for none.
    """
    import gradio as gr
    from fastapi import FastAPI
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, PlainTextResponse, Response

    from lcg.app.guard import Guard
    from lcg.app.theme import theme

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    async def report(number: int) -> Response:
        try:
            page = await run_in_threadpool(reports.page, number)
        except (KeyError, OSError):
            return PlainTextResponse("There is no such report any more; reload the page.", 404)
        return HTMLResponse(page, headers={"content-security-policy": REPORT_POLICY})

    app.add_api_route("/reports/{number}", report)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=0,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        theme=theme(),
        head=f"<style>{_text('style.css')}</style><script>{_text('page.js')}</script>",
    )
    page.has_launched = True  # until then Gradio would copy any file of the server that a message names
    return Guard(app, loopback, password)


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def serve(app: ASGIApp, bound: socket.socket) -> None:
    """Serves until the process is told to end.

    Raises:
        KeyboardInterrupt: by Ctrl-C, when everything is closed.
        SystemExit: by a termination, likewise, with 143 as shells have it.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        h11_max_incomplete_event_size=2**16,
        timeout_graceful_shutdown=PATIENCE,
    )

    logging.getLogger("uvicorn.error").addFilter(_is_no_ending)

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    uvicorn.Server(config).run(sockets=[bound])


def _is_no_ending(record: logging.LogRecord) -> bool:
    """Whether a message is about something else than the pages that are open when the server ends."""
    error = record.exc_info[0] if record.exc_info else None
    ended = error is not None and issubclass(error, asyncio.CancelledError)
    return not ended and "graceful shutdown" not in record.getMessage()

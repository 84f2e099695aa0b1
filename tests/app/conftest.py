"""A server of `lcg app` in a process of its own, and a browser.

Skipped where there is no gradio (the extra `app`), no playwright (the extra `dev`) or no chromium: /usr/bin/chromium,
else one on the path, else the one that `playwright install chromium` has put where playwright looks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("gradio") is None:
    collect_ignore_glob = ["test_*.py"]  # needs gradio: pip install -e '.[app]'

REPORT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="generator" content="lcg 0.1.0">
<title>{title}</title></head><body><main><h1>{title}</h1><p>joint accuracy</p></main></body></html>
"""


def write_report(folder: Path, title: str = "A small benchmark", created: str = "2026-11-21 11:32:22 +0000") -> Path:
    """A report and its benchmark's folder as `lcg report` and `lcg bench` leave them, but for what is in them."""
    bench = folder / "bench"
    bench.mkdir(parents=True)
    (bench / "provenance.json").write_text(json.dumps({"title": title, "created": created}))
    (bench / "results.csv").write_text(
        "method,task,metric,value,stderr,n,seed\nlcg,generate/glasses,joint_accuracy,0.9,0.01,64,0\n"
        "arithmetic,generate/glasses,joint_accuracy,0.8,0.01,64,0\n"
    )
    path = folder / "report.html"
    path.write_text(REPORT.format(title=title))
    return path


@pytest.fixture(scope="session")
def report() -> Callable[..., Path]:
    """Writes a report; see `write_report`."""
    return write_report


ALONE = """
import socket, sys, traceback
allowed = ("127.0.0.1", "localhost", "::1", "0.0.0.0", None, "")

def guarded(name, place):
    own = getattr(socket if name == "getaddrinfo" else socket.socket, name)
    def asked(*arguments, **named):
        address = arguments[place]
        host = address[0] if isinstance(address, tuple) else address
        if host not in allowed:
            sys.stderr.write(f"asked another server: {name} {address}\\n" + "".join(traceback.format_stack()))
            raise OSError("no network")
        return own(*arguments, **named)
    return asked

socket.getaddrinfo = guarded("getaddrinfo", 0)
for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, guarded(name, 1))
from lcg.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""Runs lcg where no other machine can be reached, and says so on stderr when it tries."""


class Server:
    """`lcg app` in a process of its own, which can reach no other machine.

    Attributes:
        url: of the page.
        process: that serves it.
    """

    def __init__(self, *options: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-c", ALONE, "app", "--open", "false", "--port", "0", *options]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        said = self.process.stdout.readline()
        found = re.search(r"http://\S+", said)
        if found is None:
            self.process.kill()
            raise RuntimeError(f"the server did not start: {said}{self.process.stderr.read()}")
        self.url = found[0]

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Ends the process by a signal; its exit code, and what it has said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, errors = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server of a test's own, with options of `lcg app`, whose temporary files go to tmp_path / "tmp"."""
    servers: list[Server] = []
    (tmp_path / "tmp").mkdir()

    def started(*options: str) -> Server:
        servers.append(Server("--runs", str(tmp_path), *options, environment={"TMPDIR": str(tmp_path / "tmp")}))
        return servers[-1]

    yield started
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page over the shipped model, with one report among its runs; shared by all tests of a run."""
    runs = tmp_path_factory.mktemp("runs")
    write_report(runs / "small")
    server = Server("--runs", str(runs))
    yield server
    server.stop()


@pytest.fixture
def open_page(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page as a new user: open_page(tab="edit", width=1280, scheme="light", **of the browser's context).

    The page has what it asked for as `requested`, and what went wrong in it (the console's warnings and errors,
    exceptions) as `complaints`.
    """
    contexts = []

    def opened(tab: str = "generate", width: int = 1280, height: int = 900, scheme: str = "light", **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        contexts.append(context)
        page = context.new_page()
        page.requested, page.complaints = [], []
        page.on("request", lambda sent: page.requested.append(sent.url))
        page.on(
            "console", lambda said: page.complaints.append(said.text) if said.type in ("warning", "error") else None
        )
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(f"{server.url}#{tab}")
        page.locator(f"#tabs button[role=tab][data-tab-id={tab}][aria-selected=true]").wait_for(timeout=30_000)
        return page

    yield opened
    for context in contexts:
        context.close()

"""`lcg app`: the page in which a model is played with.

The port is taken before Gradio is imported and the model is opened, which takes seconds: a taken port is the likeliest
thing to fail. The browser is told last.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import webbrowser

from lcg.generators.base import Generator


def app_job(
    model: str = "avatars",
    store: str | None = None,
    generator: Generator | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str | None = None,
    runs: str = "runs",
    open: bool = True,
    device: str = "auto",
) -> None:
    """Opens a page in the browser to generate, edit and explore with: lcg app.

    It starts on the model that ships with lcg, with nothing trained and without a network, and is served to this
    machine only. Ctrl-C ends it. Nothing that is done there is kept; what you make is yours to download.

    Args:
        model: name or folder of an exported model.
        store: latent store whose images can be edited and explored; the model's own gallery when left out.
        generator: the frozen generator; the embedded one when left out.
        host: address to be reached at; 0.0.0.0 is the whole network's, better with a password.
        port: 0 takes any free one.
        password: asks browsers for it, with any user name.
        runs: folder below which reports of benchmarks are found.
        open: whether the browser is opened.
        device: auto, cpu, cuda or cuda:N.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("`lcg app` needs gradio: pip install 'lcg[app]'")
    if password == "":
        raise ValueError("`password` must not be empty; leave it out for none")
    from lcg.app.guard import is_loopback
    from lcg.app.reports import Reports
    from lcg.app.server import alone, listen

    reports, bound = Reports(runs), listen(host, port)
    with bound, alone():
        from lcg.app.interface import interface
        from lcg.app.server import application, serve
        from lcg.app.studio import Studio
        from lcg.places import pick_device

        loopback = is_loopback(host)
        studio = Studio.open(model, store, generator, pick_device(device))
        app = application(interface(studio, reports), reports, loopback, password)
        address = f"http://{'[' + host + ']' if ':' in host else host}:{bound.getsockname()[1]}"
        print(f"lcg app: {address} (Ctrl-C ends it)", flush=True)
        if not loopback:
            print(f"warning: {_open_to(host, password)}", file=sys.stderr, flush=True)
        if open and _has_browser():
            webbrowser.open(address)  # the port listens already: it waits until the server answers
        serve(app, bound)


def _open_to(host: str, password: str | None) -> str:
    who = f"everybody who reaches {host} over the network"
    if password is None:
        return f"{who} can use this page, there is no password; --host 127.0.0.1 keeps it to this machine"
    return f"{who} can try the password, which travels unencrypted; put a proxy with TLS in front for strangers"


def _has_browser() -> bool:
    """Whether a browser with a window can be opened; one in the terminal would take it over."""
    if os.name == "nt" or sys.platform == "darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

"""The process that serves the page: how it starts, what it leaves, how it ends."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcg.app.job import app_job
from lcg.app.server import ENVIRONMENT, alone, listen


def test_a_taken_port_is_told_with_one_that_is_free() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"port {port} of 127.0.0.1 is taken; --port (\d+) is free, and --port 0 takes any"
        ) as told:
            app_job(port=port)
        free = int(re.findall(r"--port (\d+)", str(told.value))[0])
        listen("127.0.0.1", free).close()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may take any port")
def test_a_port_of_the_system_is_told() -> None:
    with pytest.raises(OSError, match=r"port 80 of 127\.0\.0\.1 is not yours to take"):
        listen("127.0.0.1", 80)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=r"`port` must be 0 \(any free one\) to 65535, got"):
        listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "not a host"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"`host` must be an address of this machine, such as 127\.0\.0\.1, got"):
        listen(host, 0)


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"`lcg app` needs gradio: pip install 'lcg\[app\]'"):
        app_job()


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(ValueError, match="`password` must not be empty"):
        app_job(password="")


def test_the_folder_of_the_process_is_its_own_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with alone() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder) and os.environ["HF_HUB_OFFLINE"] == "1"
        (folder / "left").touch()
    assert not folder.exists()
    assert os.environ["HF_HUB_OFFLINE"] == "0" and not {*ENVIRONMENT, "GRADIO_TEMP_DIR"} & set(os.environ) - {
        "HF_HUB_OFFLINE"
    }


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_process_ends_cleanly_with_a_page_open_and_reached_nobody(
    start: Callable[..., Any], tmp_path: Path, number: int, code: int
) -> None:
    import httpx

    server = start()
    with httpx.stream("GET", f"{server.url}/gradio_api/heartbeat/abc") as heartbeat:
        assert heartbeat.status_code == 200
        assert len(list((tmp_path / "tmp").glob("lcg-app-*"))) == 1
        ended = server.stop(number)
        assert ended in [(code, ""), (0, "")]  # 0 where interrupts are ignored, as of jobs in the background
    left = [path.name for path in (tmp_path / "tmp").iterdir()]
    assert [name for name in left if not name.startswith("torchinductor_")] == []  # torch's own cache of compiled code


@pytest.mark.slow
def test_the_network_is_warned_of_in_plain_words_and_a_password_is_asked_for(start: Callable[..., Any]) -> None:
    import httpx

    server = start("--host", "0.0.0.0", "--password", "open sesame")
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=("", "open sesame")).status_code == 200
    assert "can try the password, which travels unencrypted" in server.stop()[1]

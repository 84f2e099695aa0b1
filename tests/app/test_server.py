"""The page as it is served, in this process."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lcg.app.benchmarks_tab import listing
from lcg.app.reports import Reports
from lcg.app.server import alone, application

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def client(report: Write, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The page in this process, where no socket can be connected; `client.blocks` is Gradio's part."""

    def refused(*_: Any) -> None:
        raise AssertionError("a socket was connected")

    with alone(), pytest.MonkeyPatch.context() as patch:
        from lcg.app.interface import interface
        from lcg.app.studio import Studio

        runs = tmp_path_factory.mktemp("runs")
        report(runs / "one")
        reports = Reports(runs)
        patch.setattr(socket.socket, "connect", refused)
        page = interface(Studio.open("avatars"), reports)
        with TestClient(application(page, reports), base_url="http://127.0.0.1:7860") as client:
            client.blocks, client.reports = page, reports  # type: ignore[attr-defined]
            yield client


def event(client: TestClient, element: str, name: str, sent: Any, session: str = "someone") -> list[Any]:
    """Sends an event of a component as the page's script does; what the server puts out last for it."""
    blocks = client.blocks  # type: ignore[attr-defined]
    (component,) = [block for block in blocks.blocks.values() if getattr(block, "elem_id", None) == element]
    (number,) = [number for number, fn in blocks.fns.items() if (component._id, name) in fn.targets]
    fn = blocks.fns[number]
    message = {
        "data": [None] * len(fn.inputs),
        "event_data": sent,
        "fn_index": number,
        "trigger_id": component._id,
        "session_hash": session,
    }
    joined = client.post("/gradio_api/queue/join", json=message)
    assert joined.status_code == 200, joined.text
    lines = client.get("/gradio_api/queue/data", params={"session_hash": session}).text.splitlines()
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    (last,) = [one for one in told if one["msg"] == "process_completed"]
    assert last["success"], last
    data: list[Any] = last["output"]["data"]
    return data


def server_function(client: TestClient, element: str, name: str, sent: Any) -> Any:
    blocks = client.blocks  # type: ignore[attr-defined]
    (component,) = [block for block in blocks.blocks.values() if getattr(block, "elem_id", None) == element]
    message = {"data": sent, "component_id": component._id, "fn_name": name, "session_hash": "someone"}
    answer = client.post("/gradio_api/component_server", json=message)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_page_is_served_with_every_tab_and_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    for tab in ("Generate", "Edit", "Explore", "Benchmarks"):
        assert f'"label":"{tab}"' in page.text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert [address for address in loaded if address.startswith(("http:", "https:", "//"))] == []


def test_images_are_generated_through_the_queue(client: TestClient) -> None:
    _, answer = event(client, "generate", "submit", {"ticket": 1, "formula": "glasses & ~beard", "n": 2, "seed": 0})
    assert answer["done"] and len(answer["images"]) == 2 and answer["record"]["formula"] == "glasses & ~beard"


def test_an_impossible_formula_is_answered_in_words(client: TestClient) -> None:
    _, answer = event(client, "generate", "submit", {"ticket": 1, "formula": "glases", "n": 2, "seed": 0})
    assert "glasses" in answer["problem"] and "Traceback" not in json.dumps(answer)


def test_the_formula_box_is_answered_without_the_queue(client: TestClient) -> None:
    answer = server_function(client, "generate", "read", {"text": "glasses & be", "caret": 12})
    assert answer["suggestions"][0]["text"] == "beard"
    assert server_function(client, "generate", "write", {"asked": {"hat": False}}) == {"text": "~hat"}


def test_no_other_function_of_a_component_can_be_called(client: TestClient) -> None:
    (component,) = [b for b in client.blocks.blocks.values() if getattr(b, "elem_id", None) == "generate"]  # type: ignore[attr-defined]
    for name in ("postprocess", "__init__", "get_config", "move_resource_to_block_cache", "missing"):
        message = {"data": "/etc/passwd", "component_id": component._id, "fn_name": name, "session_hash": "a"}
        assert client.post("/gradio_api/component_server", json=message).status_code == 404


def test_functions_are_called_by_the_queue_only(client: TestClient) -> None:
    for path in ("/gradio_api/run/predict", "/gradio_api/api/predict", "/gradio_api/call/predict"):
        assert client.post(path, json={"data": []}).status_code == 404


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "https://example.com/a.png", "file:///etc/passwd"])
def test_the_application_behind_the_guard_reads_no_file_either(client: TestClient, path: str) -> None:
    """Gradio's own check of paths, which it leaves out for a mounted page unless that is said to be launched."""
    from gradio.context import LocalContext
    from gradio.exceptions import InvalidPathError
    from gradio.processing_utils import _check_allowed

    assert client.blocks.has_launched  # type: ignore[attr-defined]
    token = LocalContext.blocks.set(client.blocks)  # type: ignore[attr-defined]
    try:
        with pytest.raises(InvalidPathError, match="was not uploaded by a user"):
            _check_allowed(path, check_in_upload_folder=True)
    finally:
        LocalContext.blocks.reset(token)


def test_a_report_is_shown_by_its_number_and_runs_nothing(client: TestClient) -> None:
    (entry,) = client.reports.entries()  # type: ignore[attr-defined]
    answer = client.get(f"/reports/{entry.number}")
    assert answer.status_code == 200 and "<h1>A small benchmark</h1>" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert client.get("/reports/7").status_code == 404


def test_reports_are_listed_with_what_they_are_about_or_how_to_make_one(client: TestClient, tmp_path: Path) -> None:
    text = listing(client.reports)  # type: ignore[attr-defined]
    for part in ("A small benchmark", "21 November 2026", "lcg, arithmetic", 'href="reports/0"', 'sandbox=""'):
        assert part in text
    assert "lcg report runs/demo/bench" in listing(Reports(tmp_path))


def test_a_title_is_shown_and_not_believed(report: Write, tmp_path: Path) -> None:
    report(tmp_path, title="&lt;script&gt;alert(1)&lt;/script&gt;")
    assert "<script" not in listing(Reports(tmp_path)) and "&lt;script&gt;" in listing(Reports(tmp_path))

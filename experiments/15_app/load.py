"""How long an edit takes, for one person and for twenty at once: real HTTP, as a browser sends it.

    lcg app --open false
    python experiments/15_app/load.py --clients 1
    python experiments/15_app/load.py --clients 20

Every client is a session of its own: it opens the page, draws a sample, clicks four attributes one after another
without a pause for thought, and draws the next sample; nothing is asked twice. An edit's time is from sending the
request until the refined image is there. The first edit of a sample needs its inversion and one evaluation of the path,
each further one two: the new edit alone, for the details that it brings, and all together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import time
from dataclasses import dataclass
from itertools import product
from typing import Any

import httpx

ATTRIBUTES = ("glasses", "smile", "hat", "beard")
ROUNDS = tuple(product((True, False), repeat=len(ATTRIBUTES)))
"""Each a sequence of clicks, one attribute after another; the next begins with another sample."""


@dataclass(frozen=True)
class Address:
    """Where requests of a component go."""

    component: int
    function: int
    inputs: int


def address(page: str, element: str) -> Address:
    """Of the event `submit` of a component, from the page's own configuration."""
    found = re.search(r"window\.gradio_config = (\{.*?\});</script>", page, re.DOTALL)
    if found is None:
        raise SystemExit("this is no page of `lcg app`")
    config = json.loads(found[1])
    (component,) = [one["id"] for one in config["components"] if one["props"].get("elem_id") == element]
    (event,) = [one for one in config["dependencies"] if [component, "submit"] in one["targets"]]
    return Address(component, event["id"], len(event["inputs"]))


async def asked(client: httpx.AsyncClient, where: Address, session: str, request: dict[str, Any]) -> dict[str, Any]:
    """Sends an event and waits for its answer."""
    message = {
        "data": [None] * where.inputs,
        "event_data": request,
        "fn_index": where.function,
        "trigger_id": where.component,
        "session_hash": session,
    }
    joined = await client.post("/gradio_api/queue/join", json=message)
    joined.raise_for_status()
    event = joined.json()["event_id"]
    async with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            told = json.loads(line[6:]) if line.startswith("data: ") else {}
            if told.get("event_id") == event and told["msg"] == "process_completed":
                answer: dict[str, Any] = told["output"]["data"][-1] if told["success"] else {"error": told}
                return answer
    raise RuntimeError("the stream ended before the answer")


def opened_at(answer: dict[str, Any]) -> float:
    """The model's own strength, as the page was told it."""
    strength: float = answer["session"]["strength"]
    return strength


async def edits(url: str, number: int, count: int) -> tuple[list[float], list[str]]:
    """What one person waits for, and what goes wrong."""
    waits, errors, session = [], [], f"load{number}x{time.time_ns()}"
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        where = address((await client.get("/")).text, "edit")
        for turn in range(count):
            round, clicks = turn // len(ATTRIBUTES), turn % len(ATTRIBUTES) + 1
            values = ROUNDS[(round + number) % len(ROUNDS)]
            if clicks == 1:
                sample = {"do": "sample", "seed": 1000 * (round + 1) + number, "ticket": 0}
                opened = await asked(client, where, session, sample)
                if "error" in opened:
                    return waits, [*errors, str(opened["error"])]
            wish = dict(zip(ATTRIBUTES[:clicks], values, strict=False))
            begun = time.perf_counter()
            request = {"do": "ask", "ticket": turn + 1, "asked": wish, "weights": {}, "strength": opened_at(opened)}
            answer = await asked(client, where, session, request)
            waits.append(time.perf_counter() - begun)
            if "error" in answer or answer.get("ticket") != turn + 1:
                errors.append(str(answer.get("error", "the answer belongs to another request")))
    return waits, errors


async def load(url: str, clients: int, count: int) -> None:
    """Runs all clients side by side and tells what they have seen."""
    begun = time.perf_counter()
    found = await asyncio.gather(*(edits(url, number, count) for number in range(clients)))
    waits = sorted(wait for each, _ in found for wait in each)
    errors = [error for _, each in found for error in each]
    p95 = waits[min(len(waits) - 1, int(0.95 * len(waits)))]
    print(
        f"{clients} clients, {len(waits)} edits in {time.perf_counter() - begun:.1f} s: median "
        f"{1000 * statistics.median(waits):.0f} ms, p95 {1000 * p95:.0f} ms, longest {1000 * waits[-1]:.0f} ms, "
        f"{len(errors)} errors"
    )
    for error in sorted(set(errors)):
        print(f"  {error}")
    raise SystemExit(bool(errors))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860", help="of the page")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--edits", type=int, default=10, help="of each client")
    options = parser.parse_args()
    asyncio.run(load(options.url, options.clients, options.edits))

"""One thing at a time: what computes takes turns, and who is in a hurry goes first.

Two threads that compute small things wait for each other more than they gain, so everything that computes runs in one
thread of its own. Who waits has a deadline, its time of arrival plus its patience, and the earliest deadline is served
next: a preview overtakes the parts of a long job, and nobody waits for ever, as a deadline that is old enough comes
first. What is waiting for the same function by then is done with it, in one call.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, PriorityQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")
Several = Callable[[list[Item]], list[T]]
"""Answers several items, one by one or all in one; an error of one is found by asking for each alone."""

HURRIED, USUAL, PATIENT = 0.1, 0.5, 3.0
"""Patience in seconds: of previews, of edits, and of parts of long jobs."""

TOGETHER = 16
"""Items that are answered in one call."""


@dataclass(order=True)
class Job(Generic[Item, T]):
    """An item that waits for its answer; jobs are ordered by deadline, and with equal ones by arrival."""

    deadline: float
    number: int
    several: Several[Item, T] = field(compare=False)
    item: Item = field(compare=False)
    answer: Future[T] = field(compare=False, default_factory=Future)


class Turns:
    """A thread that does what it is given, by deadline."""

    def __init__(self) -> None:
        self._waiting: PriorityQueue[Job[Any, Any]] = PriorityQueue()
        self._count = itertools.count()
        self._thread = threading.Thread(target=_serve, args=(self._waiting,), name="lcg-studio", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T], patience: float = USUAL, arrived: float | None = None) -> T:
        """Waits for its turn, and for the answer of `work`, whose errors are raised here.

        Args:
            work: without arguments; must not take a turn itself.
            patience: in seconds; smaller goes first.
            arrived: when the request came whose part this is, by `time.monotonic`; None for now.
        """
        return self.share(lambda items: [work() for _ in items], None, patience, arrived)

    def share(self, several: Several[Item, T], item: Item, patience: float = USUAL, arrived: float | None = None) -> T:
        """Waits for the answer to an item, which may be found together with those of others that wait for it, too.

        Args:
            several: the function; equal functions share a call.
            item: what it is asked.
            patience: in seconds; smaller goes first.
            arrived: as that of `do`.
        """
        if threading.current_thread() is self._thread:
            return several([item])[0]
        begun = time.monotonic() if arrived is None else arrived
        job: Job[Item, T] = Job(begun + patience, next(self._count), several, item)
        self._waiting.put(job)
        return job.answer.result()


def _serve(waiting: PriorityQueue[Job[Any, Any]]) -> None:
    while True:
        jobs = _alike(waiting)
        try:
            for job, answer in zip(jobs, jobs[0].several([job.item for job in jobs]), strict=True):
                job.answer.set_result(answer)
        except BaseException as error:
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
            for job in jobs if len(jobs) > 1 else ():  # whose error it is only shows alone
                try:
                    job.answer.set_result(job.several([job.item])[0])
                except BaseException as own:
                    job.answer.set_exception(own)
        del jobs  # an answer is not kept until the next comes


def _alike(waiting: PriorityQueue[Job[Any, Any]]) -> list[Job[Any, Any]]:
    """The next job, and those that wait for the same function."""
    jobs: list[Job[Any, Any]] = [waiting.get()]
    others: list[Job[Any, Any]] = []
    with suppress(Empty):
        while len(jobs) < TOGETHER:
            job = waiting.get_nowait()
            (jobs if job.several == jobs[0].several else others).append(job)
    for job in others:
        waiting.put(job)
    return jobs

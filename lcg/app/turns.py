"""One thing at a time: what computes takes turns, and who is in a hurry goes first.

Two cores are used best by one computation that has both, so everything that computes runs in one thread of its own.
Who waits has a deadline, its time of arrival plus its patience, and the earliest deadline is served next: a preview
overtakes the parts of a long job, and nobody waits for ever, as a deadline that is old enough comes first.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import PriorityQueue
from typing import Any, TypeVar

T = TypeVar("T")

HURRIED, USUAL, PATIENT = 0.1, 0.5, 3.0
"""Patience in seconds: of previews, of edits, and of parts of long jobs."""

Waiting = PriorityQueue[tuple[float, int, Future[Any], Callable[[], Any]]]


class Turns:
    """A thread that does what it is given, by deadline."""

    def __init__(self) -> None:
        self._waiting: Waiting = PriorityQueue()
        self._count = itertools.count()  # equal deadlines: first come, first served
        self._thread = threading.Thread(target=_serve, args=(self._waiting,), name="lcg-studio", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T], patience: float = USUAL, arrived: float | None = None) -> T:
        """Waits for its turn, and for the answer of `work`, whose errors are raised here.

        Args:
            work: without arguments; must not take a turn itself.
            patience: in seconds; smaller goes first.
            arrived: when the request came whose part this is, by `time.monotonic`; None for now.
        """
        if threading.current_thread() is self._thread:
            return work()
        future: Future[T] = Future()
        deadline = (time.monotonic() if arrived is None else arrived) + patience
        self._waiting.put((deadline, next(self._count), future, work))
        return future.result()


def _serve(waiting: Waiting) -> None:
    while True:
        *_, future, work = waiting.get()
        try:
            future.set_result(work())
        except BaseException as error:  # belongs to who waits
            future.set_exception(error)
        del future, work  # an answer is not kept until the next comes

"""One thing at a time, in the order of deadlines; and a memory that is bounded."""

import threading
import time

import pytest

from lcg.app.recent import Recent
from lcg.app.turns import HURRIED, PATIENT, USUAL, Turns


def test_who_is_in_a_hurry_goes_first_and_nobody_waits_for_ever() -> None:
    turns, done, gate = Turns(), list[str](), threading.Event()
    blocking = threading.Thread(target=turns.do, args=(gate.wait,))
    blocking.start()
    time.sleep(0.05)  # it has its turn
    now = time.monotonic()
    asked = [("part", PATIENT, None), ("edit", USUAL, None), ("preview", HURRIED, None), ("old", PATIENT, now - 60)]
    waiting = [
        threading.Thread(target=turns.do, args=(lambda name=name: done.append(name), patience, arrived))
        for name, patience, arrived in asked
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.1)
    gate.set()
    for thread in (blocking, *waiting):
        thread.join(5)
    assert done == ["old", "preview", "edit", "part"]


def test_one_at_a_time_in_one_thread() -> None:
    turns, inside, most, threads = Turns(), [0], [0], set[str]()

    def work() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threads.add(threading.current_thread().name)
        time.sleep(0.002)
        inside[0] -= 1

    asking = [threading.Thread(target=turns.do, args=(work,)) for _ in range(20)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(5)
    assert most == [1] and threads == {"lcg-studio"}


def test_an_error_belongs_to_who_asked() -> None:
    turns = Turns()

    def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        turns.do(fail)
    assert turns.do(lambda: turns.do(lambda: 3)) == 3  # within a turn another is no waiting


def test_a_memory_keeps_what_was_used_last() -> None:
    made, memory = list[int](), Recent[int, int](2)

    def answer(key: int) -> int:
        return memory.get(key, lambda: made.append(key) or key * key)

    assert [answer(key) for key in (1, 2, 1, 3, 1, 2)] == [1, 4, 1, 9, 1, 4]
    assert made == [1, 2, 3, 2] and len(memory) == 2

"""How a student's code is read without being run."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from autograder import syntax

LONG = "\n".join(f"def f{n}(x):\n    return [x + {n} * (x - {n}) for x in range({n})]" for n in range(60))


def faults_of_threads() -> list[str]:
    """What goes wrong where three threads read the same code at the same time."""
    faults: list[str] = []

    def work() -> None:
        try:
            for _ in range(10):
                assert syntax.parse(LONG)
        except SystemError as error:
            faults.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


class TestThreads:
    @pytest.fixture(autouse=True)
    def _collector_that_lets_others_go_on(self) -> Iterator[None]:
        def rest(phase: str, info: dict[str, int]) -> None:
            time.sleep(0.0001)

        before = gc.get_threshold()
        gc.callbacks.append(rest)
        gc.set_threshold(200)
        yield
        gc.set_threshold(*before)
        gc.callbacks.remove(rest)

    def test_read_code_side_by_side(self) -> None:
        assert faults_of_threads() == []


class TestCost:
    @pytest.mark.parametrize("text", [" ", "\t", "a", "a ", "=", " =", "?", "% ", ", ", "é ", "#", "(", "'", "\\"])
    def test_a_long_line_takes_no_longer_than_many_short_ones(self, text: str) -> None:
        """Each of these took minutes when the length of a line counted squared."""
        line = (text * 50_000)[:50_000]
        for source in (line + "x y", line + "?", line + "=", "x y" + line):
            assert syntax._without_magic(source) in (source, line_of(source))


def line_of(source: str) -> str:
    body = source.lstrip()
    return source[: len(source) - len(body)] + repr(body)

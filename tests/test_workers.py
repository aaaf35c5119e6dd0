"""Hostile data is read in processes apart: they are ended when they take too much, and others take their places."""

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from autograder import grading, syntax, workers
from autograder.examiner import converse
from autograder.grading import Options, grade, submissions
from autograder.intake import Intake, Released, begin, result_of
from tests.course_fixtures import CHAPTER, course_in, make_course, run_course

pytestmark = pytest.mark.slow


def sleep() -> None:
    time.sleep(60)


def fill() -> int:
    return len(bytearray(workers.MEMORY + 2**20))


def leave() -> None:
    os._exit(3)


def nest() -> int:
    return nest()


def number() -> int:
    return os.getpid()


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    workers.start(1)
    workers.result_of(workers.submit(number, seconds=60))
    yield
    workers.stop()


class TestLimits:
    @pytest.mark.parametrize(
        ("function", "of"), [(sleep, "time"), (fill, "memory"), (leave, "memory"), (nest, "memory")]
    )
    def test_who_takes_too_much_is_ended_and_the_next_is_served(self, function: Any, of: str) -> None:
        with pytest.raises(workers.OverrunError, match=of):
            workers.result_of(workers.submit(function, seconds=1.0 if of == "time" else 60.0))
        assert workers.result_of(workers.submit(number, seconds=60)) != os.getpid()

    def test_an_event_loop_goes_on_meanwhile(self) -> None:
        async def both() -> int:
            slow = asyncio.ensure_future(workers.finished(workers.submit(sleep, seconds=1)))
            turns = 0
            while not slow.done():
                turns += 1
                await asyncio.sleep(0.01)
            assert isinstance(slow.exception(), workers.OverrunError)
            return turns

        assert asyncio.run(both()) > 20


class TestIntake:
    def test_a_submission_that_takes_too_much_is_refused_and_read_again_when_it_changes(self, tmp_path: Path) -> None:
        path = tmp_path / "ada" / CHAPTER / f"{CHAPTER}.ipynb"
        path.parent.mkdir(parents=True)
        found = []
        for size in (1, 2):
            path.write_bytes(b"x" * size)
            os.utime(path, ns=(size, size))
            overrun: Future[Intake] = Future()
            overrun.set_exception(MemoryError())
            found.append(result_of(overrun, path.parent))
        assert all("hand it in again" in one.notebook.refused for one in found)
        assert found[0].notebook.digest != found[1].notebook.digest


class TestTheGraderItself:
    def test_reads_parses_and_judges_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the grader's own process cannot read or judge anything, submissions are graded as ever."""
        with course_in(make_course(tmp_path / "course")):
            assert run_course("sample", CHAPTER, "--students", "2").exit_code == 0
            grading.release(CHAPTER)
            for module, name in (
                (syntax, "parse"),
                (syntax, "_tree"),
                (grading.intake, "read"),
                (grading.intake, "rebuild"),
            ):
                monkeypatch.setattr(module, name, _nowhere)
            monkeypatch.setattr("autograder.examiner.judge", _nowhere)
            monkeypatch.setattr("autograder.examiner.decode", _nowhere)
            monkeypatch.setattr("autograder.cells.read_cells", _nowhere)
            grades = list(grade(CHAPTER, submissions(CHAPTER), Options(jobs=1, unsafe=True)))
        assert [one.fault for one in grades] == ["", ""]
        assert {one.score for one in grades} >= {12.0}


def _nowhere(*arguments: object, **named: object) -> None:
    raise AssertionError("in the grader's own process")


def test_what_the_processes_are_given_is_known_there() -> None:
    assert converse.__module__ == "autograder.examiner"
    assert begin(Path("/nowhere/ada/x"), "x", Released(Path("a"), Path("b"))).exception() is not None

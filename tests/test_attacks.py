"""Hostile and honest submissions, graded as one class: each gets what it deserves, and nothing else has happened."""

import contextlib
import hashlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
import pytest
from nbgrader.api import Gradebook

from autograder.attacks import CHAPTER, FAIR, HONEST, HOSTILE, Handed
from autograder.attacks.handed import TOTAL
from autograder.checks import find
from autograder.grading import Grade, Options, grade, submissions
from autograder.record import Record, load, place
from autograder.release import release
from autograder.sample import reference_source
from tests.course_fixtures import course_in, make_course

pytestmark = pytest.mark.slow

EVERYONE = [*HONEST, *FAIR, *HOSTILE]


@dataclass
class Graded:
    """What is left after the class was graded."""

    folder: Path
    grades: dict[str, Grade]
    before: dict[str, str]
    calls: list[bytes] = field(default_factory=list)

    def record(self, student: str) -> Record:
        with course_in(self.folder):
            record = load(place(CHAPTER, student))
        assert record is not None
        return record


class Server:
    """Answers whoever reaches a port of this machine with the solution."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.socket = self._bind()
        self.socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _bind(self) -> socket.socket:
        for port in range(8000, 8100):
            server = socket.socket()
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                server.close()
                continue
            return server
        raise AssertionError("no port is free")

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.calls.append(connection.recv(100))
                connection.sendall(reference_source(find("attention.softmax")).encode())


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file that a submission must not change."""
    paths = [folder / "nbgrader_config.py", *folder.glob("grading/source/**/*.ipynb")]
    paths += [path for path in folder.glob("grading/submitted/*/*/*") if path.is_file() and not path.is_symlink()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graded]:
    folder = make_course(tmp_path_factory.mktemp("attacked") / "course")
    with course_in(folder):
        release(CHAPTER)
        released = nbformat.read(folder / "notebooks" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
        for one in EVERYONE:
            one.write(folder / "grading" / "submitted" / one.name / CHAPTER, released)
        server = Server()
        result = Graded(folder, {}, contents(folder), server.calls)
        for got in grade(CHAPTER, submissions(CHAPTER), Options(jobs=2)):
            result.grades[got.student] = got
        server.socket.close()
        yield result


def test_there_are_enough_of_each() -> None:
    assert len(HOSTILE) >= 40
    assert len(HONEST) >= 15
    assert len({one.name for one in EVERYONE}) == len(EVERYONE)
    assert all(one.why and one.what for one in EVERYONE)
    assert {one.points for one in HONEST} == {TOTAL}


@pytest.mark.parametrize("handed", EVERYONE, ids=lambda one: one.name)
class TestEveryone:
    def test_gets_what_is_deserved(self, graded: Graded, handed: Handed) -> None:
        got = graded.grades[handed.name]
        if handed.refused:
            assert got.fault
            assert graded.record(handed.name).refused == got.fault
            return
        assert got.fault == ""
        record = graded.record(handed.name)
        assert record.points == handed.points, [
            (name, one.how, one.result.messages) for name, one in record.answers.items()
        ]
        automatic = [points for cell, points in got.cells.items() if cell.endswith("-check")]
        assert sum(points or 0 for points in automatic) == handed.points

    def test_is_flagged_where_a_person_should_look_and_nowhere_else(self, graded: Graded, handed: Handed) -> None:
        kinds = {flag.kind for flag in graded.record(handed.name).flags}
        assert handed.flags <= kinds
        if handed not in HOSTILE:
            assert not kinds - {"duplicate"}

    def test_gets_a_page_of_feedback(self, graded: Graded, handed: Handed) -> None:
        page = graded.folder / "grading" / "feedback" / handed.name / CHAPTER / f"{CHAPTER}.html"
        text = page.read_text(encoding="utf-8")
        assert "Traceback" not in text
        assert not handed.refused or re.search("cannot be graded|[Hh]and (it )?in", text)


class TestFollowThrough:
    def test_it_is_said_where_the_student_built_on_the_mistake_and_nowhere_else(self, graded: Graded) -> None:
        answers = graded.record("wrong-softmax").answers
        stood_in = {name for name, answer in answers.items() if answer.instead == ["attention.softmax"]}
        assert stood_in == {"attention.scaled_dot_product_attention"}
        assert {name for name, answer in answers.items() if answer.instead} == stood_in

    def test_it_is_not_said_where_the_students_own_did_better(self, graded: Graded) -> None:
        answers = graded.record("own-signature").answers
        assert answers["attention.softmax"].result.points == 0
        assert answers["attention.scaled_dot_product_attention"].instead == []


class TestNothingElseHasHappened:
    def test_no_file_has_changed(self, graded: Graded) -> None:
        assert contents(graded.folder) == graded.before

    def test_nobody_reached_the_server(self, graded: Graded) -> None:
        assert graded.calls == []

    def test_nothing_was_unpickled(self, graded: Graded) -> None:
        assert not Path("/tmp/unpickled").exists()

    def test_the_gradebook_says_what_the_release_says(self, graded: Graded) -> None:
        with Gradebook(f"sqlite:///{graded.folder}/grading/gradebook.db") as book:
            cells = {cell.name: cell.max_score for cell in book.find_notebook(CHAPTER, CHAPTER).grade_cells}
            assert sum(points for name, points in cells.items() if name.endswith("-check")) == TOTAL
            assert {grade.manual_score for one in book.assignment_submissions(CHAPTER)
                    for notebook in one.notebooks for grade in notebook.grades} == {None}  # fmt: skip

    def test_nothing_is_left_running(self, graded: Graded) -> None:
        """The jail's own users run nothing now, but for what the tests in a process beside this one are running."""
        left = [process for process in psutil.process_iter() if _is_jailed(process) and not _is_another_tests(process)]
        assert left == []


def _is_jailed(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return 60_000 <= process.uids().real < 65_000
    return False


def _is_another_tests(process: psutil.Process) -> bool:
    """Whether a process beside this one has started it; what lost its parent belongs to the system, and is nobody's."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(parent.ppid() == os.getppid() and parent.pid != os.getpid() for parent in process.parents())
    return True

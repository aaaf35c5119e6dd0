"""Grading that is cut off: nothing is lost, nothing is graded twice, and the next run finishes."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from autograder.record import load, place
from autograder.sample import students
from tests.course_fixtures import CHAPTER, course_in, make_course, run_course, run_program

pytestmark = pytest.mark.slow

NAMES = {student.name for student in students(CHAPTER)}
COURSE = str(Path(sys.executable).parent / "course")


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course with a class that nobody has graded."""
    folder = make_course(tmp_path_factory.mktemp("cut") / "course")
    with course_in(folder):
        assert run_course("sample", CHAPTER).exit_code == 0
    return folder


@pytest.fixture
def course(sampled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sampled, tmp_path / "course"))


def records(folder: Path) -> dict[str, str]:
    """A digest of each record."""
    found = (folder / "grading" / "records" / CHAPTER).glob("*.json")
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def scores(folder: Path) -> dict[str, float]:
    with Gradebook(f"sqlite:///{folder}/grading/gradebook.db") as book:
        submissions = book.assignment_submissions(CHAPTER)
        assert len({one.student.id for one in submissions}) == len(submissions)
        return {one.student.id: one.score for one in submissions}


def running_in(folder: Path) -> list[str]:
    """Processes whose command line names this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text and int(path.parent.name) != os.getpid():
            found.append(text)
    return found


def test_killed_at_random_moments_it_is_finished_by_the_next_run(course: Path) -> None:
    chance = random.Random(5)
    complete: dict[str, str] = {}
    for _ in range(4):
        environment = {name: value for name, value in os.environ.items() if name != "COURSE_ROOT"}
        process = subprocess.Popen(
            [COURSE, "grade", CHAPTER], cwd=course, env=environment | {"COURSE_ROOT": str(course)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + chance.uniform(4, 14)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name, digest in complete.items():
            assert records(course)[name] == digest, "what was examined is not examined again"
        complete = records(course)
    done = run_program("course", "grade", CHAPTER, cwd=course)
    assert done.returncode == 0, done.stderr
    after = records(course)
    assert after.keys() == NAMES
    assert {name: after[name] for name in complete} == complete
    with course_in(course):
        points = {name: record.points for name in NAMES if (record := load(place(CHAPTER, name)))}
    assert {name: scores(course)[name] for name in NAMES} == points
    again = run_program("course", "grade", CHAPTER, cwd=course)
    assert again.returncode == 0, again.stderr
    assert records(course) == after


def test_a_regrade_gives_the_same_points(course: Path) -> None:
    for folder in (course / "grading" / "submitted").iterdir():
        if folder.name not in ("reference", "slip-softmax"):
            shutil.rmtree(folder)
    with course_in(course):
        first = run_program("course", "grade", CHAPTER, cwd=course)
        before = {name: load(place(CHAPTER, name)) for name in ("reference", "slip-softmax")}
        second = run_program("course", "grade", CHAPTER, "--again", cwd=course)
        after = {name: load(place(CHAPTER, name)) for name in ("reference", "slip-softmax")}
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    for name, record in before.items():
        other = after[name]
        assert record is not None and other is not None
        assert record.seed == other.seed
        assert {k: v.result for k, v in record.answers.items()} == {k: v.result for k, v in other.answers.items()}


def test_a_full_disk_is_named_and_the_next_run_finishes(course: Path) -> None:
    """The records lie on a disk of 40 KB."""
    kept = course / "grading" / "records"
    kept.mkdir()
    small = ["bwrap", "--dev-bind", "/", "/", "--size", "40000", "--tmpfs", str(kept), "--die-with-parent"]
    done = subprocess.run(
        [*small, COURSE, "grade", CHAPTER, "--unsafe"], cwd=course, env=os.environ | {"COURSE_ROOT": str(course)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert "No space left on device" in done.stderr or "disk is full" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr
    finished = run_program("course", "grade", CHAPTER, cwd=course)
    assert finished.returncode == 0, finished.stderr
    assert scores(course).keys() == NAMES


def test_a_gradebook_that_cannot_be_written_is_named(course: Path) -> None:
    book = course / "grading" / "gradebook.db"
    before = book.read_bytes()
    walls = ["bwrap", "--dev-bind", "/", "/", "--die-with-parent", "--ro-bind", str(book), str(book)]
    done = subprocess.run(
        [*walls, COURSE, "grade", CHAPTER],
        cwd=course, env=os.environ | {"COURSE_ROOT": str(course)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert "gradebook.db cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert book.read_bytes() == before
    assert records(course) == {}


def test_nothing_is_left_running_when_grading_is_killed(course: Path) -> None:
    process = subprocess.Popen(
        [COURSE, "grade", CHAPTER], cwd=course, env=os.environ | {"COURSE_ROOT": str(course)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not records(course) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while running_in(course) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running_in(course) == []

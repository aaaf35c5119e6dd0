"""The `course` command in trouble: one clear sentence on stderr, exit status 2, and nothing changed."""

import json
import re
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click.testing
import pytest
from nbgrader.api import Gradebook

from autograder.verify import Report
from tests.course_fixtures import CHAPTER, CHECKS, NOTEBOOK, course_in, make_course, run_course, run_program, snapshot

BWRAP = "/usr/bin/bwrap"
COMMANDS = ["release", "grade", "sample", "verify"]


@pytest.fixture
def course(tmp_path: Path) -> Iterator[Path]:
    """A course that has not been released yet."""
    with course_in(make_course(tmp_path / "course")) as folder:
        yield folder


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released course with a sample class in it; tests of it change nothing, or work on a copy."""
    with course_in(make_course(tmp_path_factory.mktemp("sampled"))) as folder:
        assert run_course("sample", CHAPTER).exit_code == 0
    return folder


def clear(stderr: str) -> bool:
    """Whether this is one line that a person can act on."""
    return bool(re.fullmatch(r"Error: [^\n]*[.]\n", stderr)) and not re.search(
        r"Traceback|\.py\b(?<!config\.py)", stderr
    )


class Untouched:
    """Sees that a block leaves every file as it was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.before = snapshot(self.folder)
        assert self.before

    def __exit__(self, *error: object) -> None:
        assert snapshot(self.folder) == self.before


def refused(outcome: click.testing.Result | subprocess.CompletedProcess[str], *words: str) -> None:
    """The command said these words in one line and ended with the status of a user's mistake."""
    status = outcome.exit_code if isinstance(outcome, click.testing.Result) else outcome.returncode
    assert (status, outcome.stdout) == (2, ""), outcome.stderr
    assert clear(outcome.stderr), outcome.stderr
    for word in words:
        assert word in outcome.stderr


class TestChapter:
    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize("name", ["99_nothing", "01_attention.md", "../01_attention", ""])
    def test_one_that_does_not_exist_is_refused_with_those_that_do(self, course: Path, command: str, name: str) -> None:
        with Untouched(course):
            refused(run_course(command, name), repr(name), f"The chapters are: {CHAPTER}.", "Nothing was changed.")

    @pytest.mark.parametrize("command", ["release", "verify"])
    def test_one_of_two_that_does_not_exist_stops_both(self, course: Path, command: str) -> None:
        with Untouched(course):
            refused(run_course(command, CHAPTER, "99_nothing"), "'99_nothing'", "Nothing was changed.")

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_folder_without_chapters_says_so(self, tmp_path: Path, command: str) -> None:
        with course_in(tmp_path):
            refused(run_course(command, CHAPTER), "The chapters are: none.")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("command", ["grade", "sample"])
    def test_none_at_all_is_a_mistake_of_usage(self, course: Path, command: str) -> None:
        with Untouched(course):
            outcome = run_course(command)
        assert outcome.exit_code == 2
        assert "Missing argument 'CHAPTER'" in outcome.stderr


class TestSubmissions:
    def test_none_are_found(self, course: Path) -> None:
        with Untouched(course):
            place = course / "grading" / "submitted" / "STUDENT" / CHAPTER / f"{CHAPTER}.ipynb"
            refused(run_course("grade", CHAPTER), "No submissions found", str(place), f"course sample {CHAPTER}")

    def test_the_student_asked_for_has_none(self, sampled: Path) -> None:
        with course_in(sampled), Untouched(sampled):
            refused(run_course("grade", CHAPTER, "--student", "nobody"), "nobody", "Nothing was changed.")

    @pytest.mark.slow
    def test_a_malformed_one_is_named_and_the_others_are_graded(self, sampled: Path, tmp_path: Path) -> None:
        submitted = sampled / "grading" / "submitted"
        folder = make_course(tmp_path / "course")
        mine = folder / "grading" / "submitted"
        broken = {"a-broken": "{not json", "b-empty": "", "c-other": '{"cells": 3, "nbformat": 4, "nbformat_minor": 5}'}
        texts = broken | {"z-stub": (submitted / "stub" / CHAPTER / f"{CHAPTER}.ipynb").read_text(encoding="utf-8")}
        for name, text in texts.items():
            path = mine / name / CHAPTER / f"{CHAPTER}.ipynb"
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")
        before = snapshot(mine)
        done = run_program("course", "grade", CHAPTER, cwd=folder)
        assert done.returncode == 1, done.stderr
        for name in broken:
            assert re.search(rf"^{name}: not graded: .+$", done.stderr, re.MULTILINE), done.stderr
        assert not re.search("traceback", done.stderr, re.IGNORECASE), done.stderr
        assert "z-stub" not in done.stderr
        assert re.search(r"z-stub\b.* 0 of 16", done.stdout)
        assert snapshot(mine) == before
        with Gradebook(f"sqlite:///{folder}/grading/gradebook.db") as book:
            assert book.find_submission(CHAPTER, "z-stub").score == 0
        assert (folder / "grading" / "feedback" / "z-stub" / CHAPTER / f"{CHAPTER}.html").exists()


class TestGradebook:
    @pytest.mark.parametrize(
        "arguments", [["release"], ["sample", CHAPTER], ["grade", CHAPTER]], ids=lambda one: one[0]
    )
    def test_a_locked_one_is_not_waited_for(self, sampled: Path, arguments: list[str]) -> None:
        with (
            course_in(sampled),
            closing(sqlite3.connect(sampled / "grading" / "gradebook.db")) as other,
            Untouched(sampled),
        ):
            other.execute("BEGIN EXCLUSIVE")
            refused(run_course(*arguments), "gradebook.db is locked by another process", "Nothing was changed.")
            other.rollback()

    def test_a_check_needs_none(self, sampled: Path) -> None:
        with (
            course_in(sampled),
            closing(sqlite3.connect(sampled / "grading" / "gradebook.db")) as other,
            Untouched(sampled),
        ):
            other.execute("BEGIN EXCLUSIVE")
            assert run_course("release", "--check").exit_code == 0
            other.rollback()

    @pytest.mark.parametrize("arguments", [["release"], ["grade", CHAPTER]], ids=lambda one: one[0])
    def test_one_that_is_no_database_is_named(self, sampled: Path, tmp_path: Path, arguments: list[str]) -> None:
        folder = make_course(tmp_path / "course")
        path = folder / "grading" / "submitted" / "stub" / CHAPTER / f"{CHAPTER}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes((sampled / NOTEBOOK).read_bytes())
        (folder / "grading" / "gradebook.db").write_text("this is no database, but it is long enough" * 100)
        with course_in(folder), Untouched(folder):
            refused(run_course(*arguments), "gradebook.db", "Nothing was changed.")


class TestReadOnlyFolder:
    """In a mount that nobody can write to, root included."""

    @staticmethod
    def run(folder: Path, scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        scratch.mkdir()
        jail = [BWRAP, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", str(scratch)]
        program = [sys.executable, "-c", "from course.cli import main; main()", *arguments]
        homes = dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"), str(scratch))
        return run_program(*jail, *program, cwd=folder, **homes)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "arguments", [["release"], ["sample", CHAPTER], ["grade", CHAPTER]], ids=lambda one: one[0]
    )
    def test_is_named_and_nothing_changes(self, sampled: Path, tmp_path: Path, arguments: list[str]) -> None:
        with Untouched(sampled):
            refused(self.run(sampled, tmp_path / "scratch", *arguments), str(sampled), "Nothing was changed.")

    def test_that_was_never_released_is_named_too(self, course: Path, tmp_path: Path) -> None:
        with Untouched(course):
            refused(self.run(course, tmp_path / "scratch", "release"), str(course), "Nothing was changed.")

    def test_can_still_be_checked(self, sampled: Path, tmp_path: Path) -> None:
        with Untouched(sampled):
            done = self.run(sampled, tmp_path / "scratch", "release", "--check")
        assert (done.returncode, done.stderr) == (0, "")


class TestMachine:
    @pytest.mark.parametrize("package", ["torch", "nbgrader", "jupytext"])
    def test_a_missing_package_is_named(self, sampled: Path, package: str) -> None:
        code = f"import sys; sys.modules[{package!r}] = None; from course.cli import main; main()"
        command = "verify" if package == "torch" else "release"
        with Untouched(sampled):
            done = run_program(sys.executable, "-c", code, command, cwd=sampled)
        refused(done, f"'{package}", "is missing", "make environment", "Nothing was changed.")

    @pytest.mark.parametrize(
        "arguments", [["release"], ["sample", CHAPTER], ["grade", CHAPTER]], ids=lambda one: one[0]
    )
    def test_missing_settings_are_named(self, course: Path, arguments: list[str]) -> None:
        (course / "nbgrader_config.py").unlink()
        with Untouched(course):
            refused(run_course(*arguments), "nbgrader_config.py is missing", "Nothing was changed.")


class TestServe:
    @staticmethod
    def build(folder: Path) -> None:
        (folder / "_build" / "html").mkdir(parents=True)
        (folder / "_build" / "html" / "index.html").write_text("the book", encoding="utf-8")

    def test_without_a_built_book_says_how_to_build_it(self, course: Path) -> None:
        with Untouched(course):
            refused(run_course("serve", "--port", "0"), "no built book", "make book")

    def test_a_port_in_use_is_named(self, course: Path) -> None:
        self.build(course)
        with socket.socket() as taken, Untouched(course):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            refused(run_course("serve", "--port", port), f"Port {port} is in use", "--port 0")

    @pytest.mark.parametrize("port", ["-1", "65536", "http"])
    def test_a_port_that_cannot_be_is_a_mistake_of_usage(self, course: Path, port: str) -> None:
        outcome = run_course("serve", "--port", port)
        assert outcome.exit_code == 2
        assert "--port" in outcome.stderr

    def test_serves_the_book_at_a_local_address_alone(self, course: Path) -> None:
        self.build(course)
        code = "from course.cli import main; main()"
        server = subprocess.Popen(
            [sys.executable, "-u", "-c", code, "serve", "--port", "0"],
            cwd=course, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", said)
            assert address, said
            with urllib.request.urlopen(address[0], timeout=30) as page:
                assert page.read() == b"the book"
        finally:
            server.terminate()
            server.communicate(timeout=30)


class TestHelp:
    def test_lists_every_command_with_what_it_does(self) -> None:
        outcome = run_course("--help")
        assert outcome.exit_code == 0
        for command in (*COMMANDS, "serve"):
            assert re.search(rf"^  {command} +[A-Z].+", outcome.stdout, re.MULTILINE)

    def test_an_unknown_command_is_a_mistake_of_usage(self) -> None:
        outcome = run_course("grad")
        assert outcome.exit_code == 2
        assert "grad" in outcome.stderr


class TestVerify:
    @staticmethod
    def find(monkeypatch: pytest.MonkeyPatch, **found: object) -> None:
        """Let the verification find this in every check, without running it."""

        def reports(names: list[str], processes: int, done: object) -> list[Report]:
            return [Report(name, 1, 3, 5, mutants=2, **{"killed": 2, **found}) for name in names]  # type: ignore[arg-type]

        monkeypatch.setattr("autograder.verify.verify_all", reports)

    def test_prints_a_row_for_each_exercise_and_ends_well(self, course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.find(monkeypatch)
        with Untouched(course):
            outcome = run_course("verify", CHAPTER)
        assert (outcome.exit_code, outcome.stderr) == (0, "")
        for name in (*CHECKS, "all"):
            assert re.search(rf"{re.escape(name)} .*100%", outcome.stdout), outcome.stdout

    def test_ends_with_1_and_names_each_fault(self, course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fault = "a mutant survives"
        self.find(monkeypatch, killed=1, false_accepts=[fault])
        outcome = run_course("verify", CHAPTER)
        assert outcome.exit_code == 1
        assert outcome.stderr == f"{fault}\n" * len(CHECKS)
        assert "50%" in outcome.stdout

    def test_keeps_the_table_only_of_a_faultless_whole(
        self, course: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        record = tmp_path / "verified.json"
        monkeypatch.setattr("autograder.verify.RECORD", record)
        self.find(monkeypatch, false_accepts=["a mutant survives"])
        assert run_course("verify", "--record").exit_code == 1
        assert run_course("verify", CHAPTER, "--record").exit_code == 2
        assert not record.exists()
        self.find(monkeypatch)
        assert run_course("verify", "--record").exit_code == 0
        assert [row[0] for row in json.loads(record.read_text("utf-8"))["rows"]] == [*CHECKS, "all"]


def test_the_program_itself_is_installed(tmp_path: Path) -> None:
    done = run_program("course", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage: course" in done.stdout

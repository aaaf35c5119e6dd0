"""Names of folders: whoever has an awkward one is graded, entered and answered like everybody else."""

import csv
import io
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from nbgrader.api import Gradebook
from sqlalchemy.exc import OperationalError

from autograder import nbgrader_course, roster
from autograder.attacks.names import AWKWARD, write_class
from autograder.commands import plain_console
from autograder.entering import Book, Grade
from autograder.grade_table import notes, table
from autograder.grading import Options, _entered, _is_ours, grade
from autograder.record import Record, load, place
from autograder.release import release
from autograder.roster import shown, submissions
from autograder.tables import harmless
from course.chapters import CourseError
from course.students import former, identifier, identifiers, is_plain, made_of
from tests.course_fixtures import CHAPTER, ROOT, course_in, make_course, run_course, run_program, snapshot
from tests.records import record_of

FILE_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80)


class TestIdentifiers:
    @given(st.lists(FILE_NAMES, unique=True, max_size=20))
    def test_no_two_names_share_one_whatever_the_case(self, names: list[str]) -> None:
        found = identifiers(names)
        assert found.keys() == set(names)
        assert len({one.casefold() for one in found.values()}) == len(names)
        assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", one) and one[-1] != "." for one in found.values())

    def test_awkward_names_are_told_apart_and_the_list_is_long_enough(self) -> None:
        assert len(set(AWKWARD)) == len(AWKWARD) >= 60
        assert not [name for name in AWKWARD if "/" in name or len(name.encode("utf-8", "surrogateescape")) > 255]
        assert len({one.casefold() for one in identifiers(AWKWARD).values()}) == len(AWKWARD)

    @pytest.mark.parametrize("name", ["ada", "Ada", "a.b-c_d", "007", "0", "a" * 64])
    def test_a_plain_name_stays(self, name: str) -> None:
        assert identifiers([name])[name] == name

    @pytest.mark.parametrize(
        "name", ["Ada B", "a.", "-a", ".a", "a" * 65, "é", "a*", "x[1]", "a\n", "con", "NUL.txt", ""]
    )
    def test_another_does_not(self, name: str) -> None:
        assert not is_plain(name)
        assert identifiers([name])[name] == made_of(name)

    def test_nobody_can_have_anothers_by_name(self) -> None:
        taken = made_of("Smith [group 2]")
        assert identifiers(["Smith [group 2]", taken])[taken] != taken
        assert taken not in former(taken, made_of(taken))

    def test_it_does_not_depend_on_who_else_is_there_but_for_twins(self, tmp_path: Path) -> None:
        alone = {name: identifiers([name])[name] for name in AWKWARD}
        together = identifiers(AWKWARD)
        assert {name for name in AWKWARD if alone[name] != together[name]} == {"Ann", "ANN"}
        for name in ("Ann", "ann", "x[1]"):
            (tmp_path / name).mkdir()
        assert identifier(tmp_path / "Ann") == made_of("Ann")
        assert identifier(tmp_path / "ann") == "ann"
        assert identifier(tmp_path / "nowhere" / "Ann") == "Ann"


class TestShown:
    @pytest.mark.parametrize("name", AWKWARD)
    def test_in_one_line_that_does_nothing_to_the_terminal_and_the_page(self, name: str) -> None:
        seen = shown(name)
        assert seen.isprintable() and seen == seen.strip() and seen.encode("utf-8")
        assert not re.search(r"[\u200b-\u200f\u202a-\u202e\u2066-\u2069]", seen)

    def test_the_table_shows_every_name_and_marks_none_of_it_up(self) -> None:
        ids = identifiers(AWKWARD)
        grades = [
            Grade(name, ids[name], score=12, max_score=16, cells={"attention-softmax-check": 2}) for name in AWKWARD
        ]
        console = plain_console(150, io.StringIO())
        console.print(table(CHAPTER, grades))
        assert isinstance(console.file, io.StringIO)
        said = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
        assert "\x1b" not in said and "\u202e" not in said
        for name in ("Smith [group 2]", "[bold]rich", "[link=x]", "\u241b]0;title\u2407", "new\u240aline", "Ann\u2420"):
            assert f" {name} " in said
        twins = [unicodedata.normalize(form, "M\u00fcller") for form in ("NFC", "NFD")]
        assert all(ids[name] in "".join(re.split(r"[\s│]+", said)) for name in twins), "names that look the same"

    def test_a_fault_is_one_line(self) -> None:
        said, faults = notes(CHAPTER, [Grade("a\nb", "a-b-x", fault="bad\n\x1b[31mred")])
        assert faults == ["a\u240ab: not graded: bad \u241b[31mred"]
        assert any("grading/students.csv" in note for note in said)


@pytest.fixture
def course(tmp_path: Path) -> Iterator[Path]:
    with course_in(make_course(tmp_path / "course")) as folder:
        yield folder


def hand_in(course: Path, *names: str) -> None:
    for name in names:
        (course / "grading" / "submitted" / name / CHAPTER).mkdir(parents=True)


class TestWho:
    def test_a_name_is_no_pattern(self, course: Path) -> None:
        hand_in(course, "a*", "ab", "abc", "*", "[a]", "a")
        for name in ("a*", "*", "[a]", "ab"):
            assert [folder.parent.name for folder in submissions(CHAPTER, name)] == [name]
        assert len(submissions(CHAPTER)) == 6

    def test_an_identifier_stands_for_a_name_that_nobody_can_type(self, course: Path) -> None:
        hand_in(course, "new\nline", "latin-\udce9")
        for name in ("new\nline", "latin-\udce9"):
            assert [folder.parent.name for folder in submissions(CHAPTER, made_of(name))] == [name]

    @pytest.mark.parametrize("name", ["..", ".", "", "../submitted", "b*", "?", "\x1b]0;t\x07"])
    def test_another_is_refused_in_one_line(self, course: Path, name: str) -> None:
        hand_in(course, "bob")
        before = snapshot(course)
        with pytest.raises(CourseError) as error:
            submissions(CHAPTER, name)
        assert str(error.value).isprintable() and "Nothing was changed." in str(error.value)
        assert snapshot(course) == before

    def test_what_lies_about_is_named(self, course: Path) -> None:
        hand_in(course, "bob")
        submitted = course / "grading" / "submitted"
        (submitted / "eve.ipynb").touch()
        (submitted / ".DS_Store").touch()
        (submitted / "zoe").mkdir()
        (submitted / "zoe" / f"{CHAPTER}.ipynb").touch()
        assert roster.strays(CHAPTER) == ["eve.ipynb", f"zoe/{CHAPTER}.ipynb"]
        assert [folder.parent.name for folder in submissions(CHAPTER)] == ["bob"]

    def test_the_list_of_students_is_a_table_and_no_formula(self, course: Path) -> None:
        hand_in(course, *AWKWARD)
        raw = roster.write().read_bytes()
        rows = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")))[1:]
        assert {tuple(row) for row in rows} == {
            (str(harmless(shown(name))), one) for name, one in identifiers(AWKWARD).items()
        }
        assert not [row for row in rows if row[0][0] in "=+-@"]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    """The gradebook of a course in which a chapter is released."""
    with course_in(make_course(tmp_path_factory.mktemp("released"))):
        release(CHAPTER)
        book = Book(CHAPTER)
        yield book
        book.close()


@pytest.fixture
def folder(book: Book, tmp_path: Path) -> Iterator[Path]:
    """The folder of a student whom nothing is found out about, in a course that can be written."""
    with course_in(tmp_path):
        yield tmp_path / "grading" / "submitted" / "x[1]" / CHAPTER


class TestFaults:
    """What goes wrong with one submission stops no other; what is wrong with the machine stops the run."""

    @pytest.mark.parametrize(
        "error",
        [OSError(36, "File name too long"), PermissionError(13, "no"), FileNotFoundError(2, "gone"), KeyError("x"),
         MemoryError(), RecursionError(), UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates"), IndexError()],
        ids=lambda error: type(error).__name__,
    )  # fmt: skip
    def test_of_one_submission(self, book: Book, folder: Path, error: Exception) -> None:
        got = _entered(book, folder, error)
        assert (got.student, got.identifier) == ("x[1]", made_of("x[1]"))
        assert got.fault.startswith(f"the grader failed: {type(error).__name__}")

    @pytest.mark.parametrize("number", [28, 122, 30, 24, 12])
    def test_of_the_machine(self, book: Book, folder: Path, number: int) -> None:
        with pytest.raises(OSError, match="no"):
            _entered(book, folder, OSError(number, "no"))

    def test_of_the_gradebook(self, book: Book, folder: Path) -> None:
        with pytest.raises(CourseError, match="gradebook cannot be used"):
            _entered(book, folder, OperationalError("SELECT", {}, Exception("disk I/O error")))

    def test_a_place_for_records_that_cannot_be_written_is_the_machines(self, course: Path) -> None:
        (course / "grading").mkdir(exist_ok=True)
        (course / "grading" / "records").write_text("a file in its place")
        assert _is_ours(NotADirectoryError(20, "x"), CHAPTER)


class TestRecords:
    def test_one_is_found_again_under_its_identifier(self, course: Path) -> None:
        for name in AWKWARD:
            record = Record(CHAPTER, name, 1, "digest")
            record.save(place(CHAPTER, record.identifier))
            found = load(place(CHAPTER, identifiers([name])[name]))
            assert found is not None and (found.student, found.identifier) == (name, record.identifier)

    def test_an_older_one_under_another_identifier_is_left_out_of_the_report(self, course: Path) -> None:
        from autograder.report import records

        old, new = (record_of("Ann B", repairs=[word]) for word in ("old", "new"))
        old.graded = "2020-01-01T00:00:00"
        old.save(place(CHAPTER, "Ann B"))
        new.save(place(CHAPTER, new.identifier))
        assert [record.repairs for record in records(CHAPTER)[0]] == [["new"]]


class TestPath:
    @pytest.mark.parametrize("name", ["what?", "a[2026]", "*", "[x", "a?b=c"])
    def test_a_folder_that_nbgrader_cannot_work_in_is_refused_before_anything_is_written(
        self, tmp_path: Path, name: str
    ) -> None:
        with course_in(make_course(tmp_path / name)) as folder:
            before = set(tmp_path.rglob("*"))
            for command in (["release", CHAPTER], ["sample", CHAPTER], ["grade", CHAPTER]):
                done = run_course(*command)
                assert done.exit_code == 2
                assert "nbgrader takes that for a pattern" in done.stderr and "Nothing was changed." in done.stderr
            assert set(tmp_path.rglob("*")) == before and folder.name == name

    @pytest.mark.parametrize("name", ["a b", "#1 50% %20", "ünïcode 李", "a]b", "it's"])
    def test_in_any_other_the_gradebook_is_where_it_belongs(self, tmp_path: Path, name: str) -> None:
        with course_in(make_course(tmp_path / name)) as folder:
            release(CHAPTER)
            assert (folder / "grading" / "gradebook.db").exists()
            assert set(tmp_path.rglob("*.db*")) == {folder / "grading" / "gradebook.db"}
            with Gradebook(nbgrader_course.database()) as book:
                assert [one.name for one in book.assignments] == [CHAPTER]


class TestGit:
    PRIVATE = (
        "grading/gradebook.db", "grading/gradebook.db-journal", "grading/students.csv", "grading/grades.csv",
        "grading/downloaded/01_attention/archive/ada.zip", "grading/submitted/ada/01_attention/01_attention.ipynb",
        "grading/rebuilt/ada/x.ipynb", "grading/autograded/ada/x.ipynb", "grading/feedback/ada/x.html",
        "grading/records/01_attention/ada.json", "grading/reports/01_attention.csv", "grading/pseudonyms.key",
        "grades.csv", "grades-2026.csv", "gradebook.db", "gradebook.db.2026-01-01", "gradebook.db-journal",
        "downloaded/01_attention/extracted/ada/x.ipynb", "submitted/ada/01_attention/x.ipynb", "autograded/ada/x.ipynb",
        "feedback/ada/x.html", ".nbgrader.log", "students.csv", "workspace/attention.py",
    )  # fmt: skip

    @pytest.mark.parametrize("path", PRIVATE)
    def test_students_data_is_ignored(self, path: str) -> None:
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0

    def test_nothing_of_the_courses_own_is(self) -> None:
        done = subprocess.run(
            ["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        assert done.stdout == ""


@pytest.mark.slow
class TestStockNbgrader:
    def test_zip_collect_finds_folders_and_archives(self, tmp_path: Path) -> None:
        folder = make_course(tmp_path / "course")
        with course_in(folder):
            release(CHAPTER)
        archive = folder / "grading" / "downloaded" / CHAPTER / "archive"
        released = folder / "notebooks" / CHAPTER / f"{CHAPTER}.ipynb"
        for name in ("ada", "Jane Doe_123_assignsubmission_file_", "Smith [group 2]"):
            (archive / name / ".ipynb_checkpoints").mkdir(parents=True)
            shutil.copy(released, archive / name / f"{CHAPTER}.ipynb")
            shutil.copy(released, archive / name / ".ipynb_checkpoints" / f"{CHAPTER}.ipynb")
        shutil.make_archive(str(archive / "zoe"), "zip", released.parent)
        done = run_program("nbgrader", "zip_collect", CHAPTER, cwd=folder)
        assert done.returncode == 0, done.stderr
        submitted = folder / "grading" / "submitted"
        assert sorted(str(path.relative_to(submitted)) for path in submitted.rglob("*.ipynb")) == [
            f"{name}/{CHAPTER}/{CHAPTER}.ipynb" for name in ("Jane Doe_123", "Smith [group 2]", "ada", "zoe")
        ]
        with course_in(folder):
            assert len(submissions(CHAPTER)) == 4
        assert {path.name for path in folder.iterdir()} <= {"book", "grading", "notebooks", "nbgrader_config.py"}

    def test_a_folder_that_it_cannot_keep_is_left_to_course_grade(self, tmp_path: Path) -> None:
        folder = make_course(tmp_path / "course")
        with course_in(folder):
            release(CHAPTER)
            released = nbformat.read(folder / "notebooks" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
            write_class(folder / "grading" / "submitted", released, CHAPTER, size=4)
        done = run_program("nbgrader", "autograde", CHAPTER, cwd=folder)
        assert done.returncode == 0, done.stderr
        with course_in(folder), Gradebook(nbgrader_course.database()) as book:
            assert book.students == []


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str], list[Grade]]]:
    """A class with awkward names, graded in a course whose path holds what a URL would take for something else."""
    with course_in(make_course(tmp_path_factory.mktemp("names") / "übung #2 50%25")) as folder:
        release(CHAPTER)
        released = nbformat.read(folder / "notebooks" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
        names = write_class(folder / "grading" / "submitted", released, CHAPTER)
        yield folder, names, list(grade(CHAPTER, submissions(CHAPTER), Options(jobs=2)))


@pytest.mark.slow
class TestClass:
    def test_everyone_is_graded_with_all_points(self, graded: tuple[Path, list[str], list[Grade]]) -> None:
        _, names, grades = graded
        assert {one.student for one in grades} == set(names) and len(grades) == len(names)
        assert [(one.student, one.fault, one.score) for one in grades if one.fault or one.score != 12] == []

    def test_everyone_is_in_the_gradebook_under_a_name_that_people_know(
        self, graded: tuple[Path, list[str], list[Grade]]
    ) -> None:
        _, names, _ = graded
        with Gradebook(nbgrader_course.database()) as book:
            found = {one.id: (book.find_submission(CHAPTER, one.id).score, one.last_name) for one in book.students}
        wanted = identifiers([*names, "late by mail"])
        assert {name: found[wanted[name]][0] for name in names} == dict.fromkeys(names, 12)
        assert len(found) == len(names)
        for name in names:
            known = found[wanted[name]][1]
            assert known is None if name == wanted[name] else not re.search("[<>&]", known)
        assert found[wanted["Smith [group 2]"]][1] == "Smith [group 2]"

    def test_everyone_has_feedback_under_the_name(self, graded: tuple[Path, list[str], list[Grade]]) -> None:
        folder, names, grades = graded
        for one in grades:
            page = folder / "grading" / "feedback" / one.identifier / CHAPTER / f"{CHAPTER}.html"
            assert escape(shown(one.student)) in page.read_text(encoding="utf-8")
        assert len(list((folder / "grading" / "feedback").iterdir())) == len(names)

    def test_one_student_alone_leaves_the_others_alone(self, graded: tuple[Path, list[str], list[Grade]]) -> None:
        folder, _, _ = graded
        before = {path: path.stat().st_mtime_ns for path in (folder / "grading" / "records").rglob("*.json")}
        (got,) = grade(CHAPTER, submissions(CHAPTER, "a*"), Options(again=True))
        after = {path: path.stat().st_mtime_ns for path in (folder / "grading" / "records").rglob("*.json")}
        assert got.student == "a*" and got.score == 12
        assert {path.stem for path in before if before[path] != after[path]} == {made_of("a*")}
        assert before.keys() == after.keys()

    def test_the_export_is_a_table(self, graded: tuple[Path, list[str], list[Grade]]) -> None:
        folder, names, _ = graded
        done = run_program("nbgrader", "export", cwd=folder)
        assert done.returncode == 0, done.stderr
        with (folder / "grading" / "grades.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(names) and {row["score"] for row in rows} == {"12.0"}
        assert not [row for row in rows if row["last_name"][:1] in tuple("=+-@") and row["last_name"]]

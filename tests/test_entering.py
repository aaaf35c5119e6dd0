"""The gradebook holds what the records say, whatever became of it, and whatever people gave in it is kept."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output
from nbgrader.api import Gradebook, SubmittedAssignment

from autograder import manual, nbgrader_course
from autograder.entering import Book, Grade
from autograder.grade_table import notes
from autograder.record import Record, executed_path, mark_path, place
from autograder.release import release
from course.students import made_of
from tests.course_fixtures import CHAPTER, course_in, make_course
from tests.records import record_of

WHY = "attention-why_scale-answer"
SOFTMAX = "attention-softmax-check"
DUE = datetime(2026, 3, 1, 12)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with course_in(make_course(tmp_path_factory.mktemp("released") / "course")) as folder:
        release(CHAPTER)
    return folder


@pytest.fixture
def course(released: Path, tmp_path: Path) -> Iterator[Path]:
    with course_in(Path(shutil.copytree(released, tmp_path / "course"))) as folder:
        yield folder


def zero_when_late(course: Path) -> None:
    """Set nbgrader's one rule of its own: who is late gets nothing."""
    with (course / "nbgrader_config.py").open("a", encoding="utf-8") as file:
        file.write('\nc.LateSubmissionPlugin.penalty_method = "zero"\n')


def keep(record: Record) -> Record:
    """Keep a record and its executed notebook, as an examination does; the first question is answered."""
    record.save(place(CHAPTER, record.identifier))
    notebook = nbformat.read(nbgrader_course.folder("source") / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    points = {f"{name.replace('.', '-')}-check": answer.result.points for name, answer in record.answers.items()}
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in points:
            cell.outputs = [new_output("execute_result", {"text/plain": str(points[name])})]
        elif name == WHY:
            cell.source = "Because the scores would grow."
    nbformat.write(notebook, executed_path(CHAPTER, record.identifier))
    return record


def run(*records: Record) -> list[Grade]:
    """What a run of `course grade` does when it has nothing to examine."""
    release(CHAPTER)
    book = Book(CHAPTER)
    try:
        return [book.enter(record) for record in records]
    finally:
        book.close()


def gradebook() -> Gradebook:
    return Gradebook(nbgrader_course.database())


def give(student: str, cell: str, points: float) -> None:
    """Give points and a comment by hand, as formgrader does."""
    with gradebook() as book:
        notebook = book.find_submission(CHAPTER, student).notebooks[0]
        for grade in notebook.grades:
            if grade.name == cell:
                grade.manual_score, grade.needs_manual_grade = points, False
        for comment in notebook.comments:
            if comment.name == WHY:
                comment.manual_comment = "Well said."
        book.db.commit()


def scores(student: str) -> dict[str, float]:
    with gradebook() as book:
        return {grade.name: grade.score for grade in book.find_submission(CHAPTER, student).notebooks[0].grades}


def set_due(moment: datetime | None, **extension: float) -> None:
    with gradebook() as book:
        book.find_assignment(CHAPTER).duedate = moment
        if extension:
            submission: SubmittedAssignment = book.find_submission(CHAPTER, "ada")
            submission.extension = timedelta(**extension)
        book.db.commit()


def database(course: Path) -> Path:
    return course / "grading" / "gradebook.db"


class TestHeld:
    def test_what_the_gradebook_holds_is_not_entered_again(self, course: Path) -> None:
        record = keep(record_of("ada"))
        (first,) = run(record)
        assert (first.fault, first.score, first.again) == ("", 12, False)
        graded = course / "grading" / "autograded" / "ada" / CHAPTER / f"{CHAPTER}.ipynb"
        before = graded.stat().st_mtime_ns
        assert run(record) == [first]
        assert graded.stat().st_mtime_ns == before

    def test_a_lost_one_is_filled_again_and_it_is_said(self, course: Path) -> None:
        records = [keep(record_of(name)) for name in ("ada", "x[1]")]
        run(*records)
        database(course).unlink()
        grades = run(*records)
        assert [(one.again, one.score) for one in grades] == [(True, 12), (True, 12)]
        assert scores("ada") == scores(made_of("x[1]")) and scores("ada")[SOFTMAX] == 2
        said, _ = notes(CHAPTER, grades)
        assert [note for note in said if "did not hold them as they were: ada, x[1]." in note]
        assert not [one for one in run(*records) if one.again]

    def test_an_older_copy_is_brought_up_to_date_and_keeps_what_people_gave(self, course: Path, tmp_path: Path) -> None:
        ada, bob = keep(record_of("ada")), keep(record_of("bob"))
        run(ada)
        give("ada", WHY, 1.5)
        give("ada", SOFTMAX, 1)
        shutil.copy(database(course), tmp_path / "older.db")
        run(ada, bob)
        changed = keep(record_of("ada", lambda check: check.misconceptions[0]))
        changed.digest = "another"
        run(changed, bob)
        shutil.copy(tmp_path / "older.db", database(course))
        grades = run(changed, bob)
        assert [(one.student, one.again) for one in grades] == [("ada", True), ("bob", True)]
        with gradebook() as book:
            found = book.find_submission(CHAPTER, "ada").notebooks[0]
            cells = {grade.name: (grade.auto_score, grade.manual_score) for grade in found.grades}
            comments = {comment.name: comment.manual_comment for comment in found.comments}
        points = {f"{name.replace('.', '-')}-check": one.result.points for name, one in changed.answers.items()}
        assert {name: auto for name, (auto, _) in cells.items() if name in points} == points
        assert (cells[WHY][1], cells[SOFTMAX][1], comments[WHY]) == (1.5, 1, "Well said.")

    def test_points_by_hand_do_not_wait_again_where_nothing_changed(self, course: Path) -> None:
        record = keep(record_of("ada"))
        run(record)
        give("ada", SOFTMAX, 1)
        shutil.rmtree(course / "grading" / "autograded")
        (again,) = run(record)
        assert again.again and again.cells[SOFTMAX] == 1

    def test_another_database_is_filled(self, course: Path) -> None:
        record = keep(record_of("ada"))
        run(record)
        with (course / "nbgrader_config.py").open("a", encoding="utf-8") as file:
            file.write('\nc.CourseDirectory.db_url = f"sqlite:///{root}/grading/other.db"\n')
        assert [one.again for one in run(record)] == [True]
        assert (course / "grading" / "other.db").exists() and scores("ada")[SOFTMAX] == 2

    def test_a_note_that_cannot_be_read_is_no_note(self, course: Path) -> None:
        record = keep(record_of("ada"))
        (first,) = run(record)
        for text in ("", "digest", "17", '"x"', "[]", "\x00"):
            mark_path(CHAPTER, "ada").write_text(text)
            assert run(record) == [first]

    def test_who_stood_under_another_name_keeps_what_people_gave(self, course: Path) -> None:
        """Such as a name with a space, which was a student's id before there were identifiers."""
        record = keep(record_of("Anna B"))
        with gradebook() as book:
            book.add_student("Anna B", email="a@b")
            book.add_submission(CHAPTER, "Anna B")
        give("Anna B", WHY, 2)
        (grade,) = run(record)
        assert grade.fault == "" and scores(record.identifier)[WHY] == 2
        with gradebook() as book:
            assert [(one.id, one.email, one.last_name) for one in book.students] == [
                (record.identifier, "a@b", "Anna B")
            ]

    def test_a_name_that_an_instructor_wrote_stays(self, course: Path) -> None:
        record = keep(record_of("a*"))
        with gradebook() as book:
            book.add_student(record.identifier, last_name="Bell", first_name="Ada")
        run(record)
        with gradebook() as book:
            assert book.find_student(record.identifier).last_name == "Bell"


class TestTime:
    def test_the_gradebook_has_the_time_that_was_decided_to_the_microsecond(self, course: Path) -> None:
        run(keep(record_of("ada", handed_in="2026-03-01 12:00:00.500000 UTC")))
        with gradebook() as book:
            assert book.find_submission(CHAPTER, "ada").timestamp == DUE + timedelta(microseconds=500_000)

    def test_a_time_that_is_no_longer_believed_is_taken_out(self, course: Path) -> None:
        run(keep(record_of("ada", handed_in="2026-03-01 12:00:00 UTC")))
        again = keep(record_of("ada"))
        again.digest = "another"
        run(again)
        with gradebook() as book:
            assert book.find_submission(CHAPTER, "ada").timestamp is None


class TestLate:
    def late(self) -> Record:
        record = keep(record_of("ada", handed_in="2026-03-02 12:00:00 UTC"))
        run(record)
        return record

    def test_without_a_due_date_nobody_is(self, course: Path) -> None:
        (grade,) = run(self.late())
        assert (grade.late, grade.score) == (False, 12)

    def test_a_due_date_counts_from_the_next_run_and_so_does_its_end(self, course: Path) -> None:
        zero_when_late(course)
        record = self.late()
        for due, late in ((DUE, True), (DUE + timedelta(days=2), False), (DUE, True), (None, False)):
            set_due(due)
            (grade,) = run(record)
            assert (grade.fault, grade.again, grade.late) == ("", False, late)
            assert (grade.score, grade.penalty) == ((0, 12) if late else (12, 0))
            with gradebook() as book:
                assert (book.find_submission(CHAPTER, "ada").late_submission_penalty or 0) == grade.penalty

    def test_half_a_second_is_late(self, course: Path) -> None:
        record = keep(record_of("ada", handed_in="2026-03-01 12:00:00.500000 UTC"))
        run(record)
        set_due(DUE)
        assert [one.late for one in run(record)] == [True]

    def test_an_extension_counts(self, course: Path) -> None:
        zero_when_late(course)
        record = self.late()
        set_due(DUE, days=3)
        assert [(one.late, one.score) for one in run(record)] == [(False, 12)]

    def test_an_extension_of_no_due_date_is_none(self, course: Path) -> None:
        record = self.late()
        set_due(None, days=3)
        record.digest = "another"
        assert [(one.fault, one.late, one.score) for one in run(record)] == [("", False, 12)]

    def test_points_by_hand_do_not_slip_past_the_penalty(self, course: Path) -> None:
        zero_when_late(course)
        record = self.late()
        set_due(DUE)
        run(record)
        give("ada", WHY, 2)
        assert manual.of_student(CHAPTER, "ada").late_penalty == 14, "also before the next run"
        (grade,) = run(record)
        assert (grade.score, grade.penalty, grade.late) == (0, 14, True)

    def test_late_without_a_penalty_is_said(self, course: Path) -> None:
        record = self.late()
        set_due(DUE)
        (grade,) = run(record)
        assert (grade.late, grade.penalty, grade.score) == (True, 0, 12)
        assert any(note.startswith("late: ") for note in notes(CHAPTER, [grade])[0])

"""A whole class, graded by stock nbgrader: everyone gets the points that the judge gives, and feedback that helps."""

import inspect
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbgrader.api import Gradebook

from autograder.checks import Check, Rng, find, of_chapter
from autograder.judge import in_process, judge
from autograder.sample import MARKER, Student, reference_source, solve, students, write_class
from autograder.workspace import record
from course.workspace import module
from tests.course_fixtures import (
    CHAPTER,
    NOTEBOOK,
    REFLECTIONS,
    chapter_text,
    course_in,
    make_course,
    run_course,
    run_program,
)
from tests.test_editions import body_of

pytestmark = pytest.mark.slow

IMPORTS = "import math\nimport torch\nfrom torch import Tensor, nn\n"
CLASS = {student.name: student for student in students(CHAPTER)}
SLIPS = {f"slip-{check.symbol}".lower().replace("_", "-"): check for check in of_chapter(CHAPTER)}
VARIANTS = [name for name in CLASS if name.startswith("variant-")]

NOISE = """
import sys
import warnings

warnings.warn("deprecated", stacklevel=1)
print("a progress bar", file=sys.stderr)
"""


def submit(folder: Path, name: str, notebook: Any) -> Path:
    """Hand in a notebook."""
    path = folder / "grading" / "submitted" / name / CHAPTER / f"{CHAPTER}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def noisy(source: str) -> str:
    """The same solution, with warnings and progress bars beside it and in it."""
    head, docstring, body = source.partition('    """\n')
    first, docstring, body = (
        (head + docstring, *body.partition('    """\n')[1:]) if not body else (head, docstring, body)
    )
    loud = "    import sys, warnings\n    warnings.warn('inside', stacklevel=1)\n    print('inside', file=sys.stderr)\n"
    return NOISE + first + docstring + loud + body


def grade_all(folder: Path) -> None:
    for step in ("autograde", "generate_feedback"):
        done = run_program("nbgrader", step, CHAPTER, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Student -> the course that stock nbgrader has graded them in; two courses, so that two cores are busy."""
    folder = make_course(tmp_path_factory.mktemp("class") / "right")
    with course_in(folder):
        assert run_course("sample", CHAPTER).exit_code == 0
    softmax = noisy(reference_source(find("attention.softmax")))
    loud = Student("noisy", CLASS["reference"].sources | {"attention.softmax": softmax}, answers=True)
    submit(folder, "noisy", solve(nbformat.read(folder / NOTEBOOK, as_version=4), loud))
    other = Path(shutil.copytree(folder, folder.parent / "wrong"))
    right = {"reference", "noisy", *VARIANTS}
    for course, leaves in ((folder, set(CLASS) - right), (other, right)):
        for name in leaves:
            shutil.rmtree(course / "grading" / "submitted" / name)
    with ThreadPoolExecutor() as pool:
        list(pool.map(grade_all, (folder, other)))
    with course_in(folder):
        yield {name: folder if name in right else other for name in [*CLASS, "noisy"]}


def gradebook(folder: Path) -> Gradebook:
    return Gradebook(f"sqlite:///{folder}/grading/gradebook.db")


def scores(classes: dict[str, Path], student: str) -> dict[str, float]:
    """The automatic points in the gradebook, by exercise."""
    with gradebook(classes[student]) as book:
        submission = book.find_submission_notebook(CHAPTER, CHAPTER, student)
        return {
            grade.name.removesuffix("-check").replace("-", ".", 1): grade.auto_score
            for grade in submission.grades
            if grade.name.endswith("-check")
        }


def alone(folder: Path, student: Student, check: Check) -> Any:
    """A student's solution of one exercise, on the references of all others: what follow-through judges."""
    known: dict[str, Any] = {"__name__": "student"}
    exec(IMPORTS, known)
    for other in of_chapter(CHAPTER):
        exec(reference_source(other), known)
    notebook = solve(nbformat.read(folder / NOTEBOOK, as_version=4), student)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == check.name.replace(".", "-"):
            exec(cell.source, known)
    return known[check.symbol]


def verdicts(folder: Path, student: Student) -> dict[str, float]:
    """The points that the judge gives the same solutions, each by itself."""
    return {
        check.name: judge(check, in_process(alone(folder, student, check)), graded=True, explain=False).points
        for check in of_chapter(CHAPTER)
    }


class Words(HTMLParser):
    """The text of a page, without its styles and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.hidden = 0
        self.pieces: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)


def feedback(classes: dict[str, Path], student: str) -> str:
    html = (classes[student] / "grading" / "feedback" / student / CHAPTER / f"{CHAPTER}.html").read_text(
        encoding="utf-8"
    )
    return "".join(Words(html).pieces)


def squeeze(text: str) -> str:
    return " ".join(text.split())


FULL = {check.name: check.points for check in of_chapter(CHAPTER)}


class TestPoints:
    @pytest.mark.parametrize("name", ["reference", *VARIANTS])
    def test_who_is_right_earns_all(self, classes: dict[str, Path], name: str) -> None:
        assert scores(classes, name) == FULL

    def test_there_are_at_least_three_variants(self) -> None:
        assert len(VARIANTS) >= 3

    def test_the_untouched_stub_earns_nothing(self, classes: dict[str, Path]) -> None:
        assert scores(classes, "stub") == dict.fromkeys(FULL, 0)

    def test_warnings_and_progress_bars_cost_nothing(self, classes: dict[str, Path]) -> None:
        path = classes["noisy"] / "grading" / "autograded" / "noisy" / CHAPTER / f"{CHAPTER}.ipynb"
        streams = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
        assert any(out.output_type == "stream" and out.name == "stderr" for out in streams)
        assert scores(classes, "noisy") == FULL

    def test_copies_get_equal_points(self, classes: dict[str, Path]) -> None:
        """Each of their mistakes may be right on the one before it, so the judge alone cannot tell their points."""
        assert scores(classes, "alike-1") == scores(classes, "alike-2")

    @pytest.mark.parametrize("name", [name for name in CLASS if not name.startswith("alike")])
    def test_everyone_gets_what_the_judge_gives(self, classes: dict[str, Path], name: str) -> None:
        assert scores(classes, name) == verdicts(classes[name], CLASS[name])

    @pytest.mark.parametrize(("name", "check"), SLIPS.items())
    def test_a_slip_costs_points_in_its_own_exercise(self, classes: dict[str, Path], name: str, check: Check) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = judge(check, in_process(check.misconceptions[0].target), graded=True).points
        assert scores(classes, name) == FULL | {check.name: alone}
        assert alone < check.points


class TestFeedback:
    @pytest.mark.parametrize(("name", "check"), SLIPS.items())
    def test_a_slip_is_told_its_own_diagnosis(self, classes: dict[str, Path], name: str, check: Check) -> None:
        words = squeeze(feedback(classes, name))
        assert squeeze(check.misconceptions[0].message.replace("`", "")) in words
        assert check.symbol in words
        others = [wrong.message for wrong in check.misconceptions[1:]]
        assert not [message for message in others if squeeze(message.replace("`", "")) in words]

    @pytest.mark.parametrize(("name", "check"), SLIPS.items())
    def test_a_slip_is_not_shown_the_solution(self, classes: dict[str, Path], name: str, check: Check) -> None:
        own = {line.strip() for line in check.misconceptions[0].source.splitlines()}
        right = body_of(check.reference) - own
        assert right
        lines = {line.strip() for line in feedback(classes, name).splitlines()}
        assert not right & lines

    def test_the_stub_is_shown_no_solution_and_told_to_begin(self, classes: dict[str, Path]) -> None:
        words = feedback(classes, "stub")
        lines = {line.strip() for line in words.splitlines()}
        for check in of_chapter(CHAPTER):
            assert not body_of(check.reference) & lines
            assert re.search(rf"{check.symbol}(\.__init__)? is not written yet", squeeze(words))

    @pytest.mark.parametrize("name", [*CLASS, "noisy"])
    def test_nobody_sees_hidden_cases_expected_values_or_the_checker(self, classes: dict[str, Path], name: str) -> None:
        words = feedback(classes, name)
        assert not re.search(r"(?<!torch\.)tensor\(|Traceback|autograder/|<probe>|SOLUTION|site-packages", words)
        for check in of_chapter(CHAPTER):
            for case in check.prepare(Rng(0)):
                assert not case.hidden or f"Tried: {case.title}," not in words
        for question in REFLECTIONS.values():
            assert not [line for line in question.rubric.splitlines() if line and line in words]

    @pytest.mark.parametrize("name", [*CLASS, "noisy"])
    def test_the_points_on_the_page_are_those_of_the_gradebook(self, classes: dict[str, Path], name: str) -> None:
        words = squeeze(feedback(classes, name))
        for exercise, points in scores(classes, name).items():
            assert f"{exercise}{points:g} of {FULL[exercise]} points" in words


class TestStockNbgrader:
    def test_validate_passes_a_solved_notebook(self, classes: dict[str, Path]) -> None:
        path = classes["reference"] / "grading" / "submitted" / "reference" / CHAPTER / f"{CHAPTER}.ipynb"
        done = run_program("nbgrader", "validate", str(path), cwd=classes["reference"])
        assert done.returncode == 0, done.stderr
        assert "Success! Your notebook passes all the tests." in done.stdout

    def test_validate_says_what_is_missing_in_a_released_one(self, classes: dict[str, Path]) -> None:
        done = run_program("nbgrader", "validate", str(classes["stub"] / NOTEBOOK), cwd=classes["stub"])
        assert done.returncode == 0, done.stderr
        assert f"FAILED ON {len(FULL) + 2} CELL(S)" in done.stdout
        for name in FULL:
            assert f'check("{name}", ' in done.stdout
        assert "Traceback" not in done.stdout

    def test_export_lists_everyone(self, classes: dict[str, Path]) -> None:
        for folder in set(classes.values()):
            done = run_program("nbgrader", "export", "--to", "grades.csv", cwd=folder)
            assert done.returncode == 0, done.stderr
            rows = (folder / "grades.csv").read_text(encoding="utf-8").splitlines()
            columns = rows[0].split(",")
            exported = {row.split(",")[columns.index("student_id")]: row.split(",") for row in rows[1:]}
            assert exported.keys() == {name for name in classes if classes[name] == folder}
            for name, row in exported.items():
                assert float(row[columns.index("max_score")]) == sum(FULL.values()) + 4
                with gradebook(folder) as book:
                    assert float(row[columns.index("score")]) == book.find_submission(CHAPTER, name).score


class TestQuestions:
    def answers(self, classes: dict[str, Path], student: str) -> dict[str, tuple[bool, float]]:
        with gradebook(classes[student]) as book:
            grades = book.find_submission_notebook(CHAPTER, CHAPTER, student).grades
            return {g.name: (bool(g.needs_manual_grade), g.score) for g in grades if g.name.endswith("-answer")}

    def test_answers_wait_for_a_person(self, classes: dict[str, Path]) -> None:
        assert {waiting for waiting, _ in self.answers(classes, "variant-1").values()} == {True}

    def test_an_answer_that_was_not_given_does_not_wait(self, classes: dict[str, Path]) -> None:
        assert set(self.answers(classes, "stub").values()) == {(False, 0.0)}

    def test_points_given_by_hand_survive_another_grading(self, classes: dict[str, Path]) -> None:
        with gradebook(classes["reference"]) as book:
            for grade in book.find_submission_notebook(CHAPTER, CHAPTER, "reference").grades:
                if grade.name == "attention-why_scale-answer":
                    grade.manual_score, grade.needs_manual_grade = 1.5, False
            book.db.commit()
        done = run_program("course", "grade", CHAPTER, "--student", "reference", cwd=classes["reference"])
        assert done.returncode == 0, done.stderr
        assert self.answers(classes, "reference")["attention-why_scale-answer"][1] == 1.5
        assert self.answers(classes, "reference")["attention-choose_mask-answer"] == (True, 0.0)
        assert scores(classes, "reference") == FULL
        total = sum(FULL.values())
        cells = [squeeze(cell) for cell in re.split("[│┃]", done.stdout)]
        assert "reference" in cells
        assert f"{total + 1.5:g} of {total + 4} *" in cells
        assert "awaits grading by hand" in done.stdout
        assert "Traceback" not in done.stderr


def test_a_real_submission_under_a_samples_name_is_left_alone(tmp_path: Path) -> None:
    with course_in(make_course(tmp_path, chapter_text())) as folder:
        own = folder / "grading" / "submitted" / "reference" / CHAPTER / f"{CHAPTER}.ipynb"
        own.parent.mkdir(parents=True)
        own.write_text("a student's work", encoding="utf-8")
        written = write_class(CHAPTER)
        assert own.read_text(encoding="utf-8") == "a student's work"
        assert own not in written
        assert len(written) == len(CLASS) - 1
        assert all((path.parent / MARKER).exists() for path in written)
        assert write_class(CHAPTER) == written


class TestWorkspace:
    def test_grading_keeps_nothing_of_what_a_class_hands_in(self, classes: dict[str, Path]) -> None:
        for folder in set(classes.values()):
            assert not (folder / "workspace").exists()

    def test_a_student_who_runs_the_notebook_gets_a_library_that_trains(
        self, classes: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = classes["reference"]
        notebook = solve(nbformat.read(folder / NOTEBOOK, as_version=4), CLASS["variant-1"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COURSE_ROOT", str(folder))
            patch.setenv("COURSE_WORKSPACE", str(tmp_path))
            NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
            assert set(record(tmp_path / "workspace")) == {check.name for check in of_chapter(CHAPTER)}
            assert softmax_is_own(module("attention"))
        shown = [output["data"]["text/html"] for cell in notebook.cells for output in cell.get("outputs", [])
                 if "text/html" in output.get("data", {})]  # fmt: skip
        assert sum("Kept in workspace/attention.py" in html for html in shown) == len(of_chapter(CHAPTER))


def softmax_is_own(attention: Any) -> bool:
    """Whether the module's attention really calls the student's softmax."""
    source = inspect.getsource(attention.softmax)
    return "logsumexp" in source and attention.softmax.__module__ == "workspace.attention"

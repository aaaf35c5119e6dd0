"""The feedback page: everything that helps a student is on it, and nothing that would tell an answer or do harm."""

import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from nbgrader.api import Gradebook
from playwright.sync_api import Browser
from sqlalchemy.exc import SAWarning

from autograder import feedback, manual, nbgrader_course
from autograder.checks import Check, Named, Rng
from autograder.judge import Part
from autograder.manual import Manual, ManualGrade
from autograder.record import Answer, Flag, Record, place
from autograder.render import template
from autograder.student_text import all_visible, shortened, visible
from course.repository import page_url, repository
from tests.browser import chromium, serve, visit, window
from tests.course_fixtures import (
    CHAPTER,
    CHECKS,
    REFLECTIONS,
    ROOT,
    course_in,
    make_course,
    run_course,
    run_program,
)
from tests.records import HOSTILE, Page, in_order, record_of, right, squeeze
from tests.test_editions import body_of

MISTAKES = [(check, mistake) for check in CHECKS.values() for mistake in check.misconceptions]
SOFTMAX = "attention.softmax"
WHY = "attention.why_scale"
MASKS = "attention.choose_mask"
NOTHING = Manual()


@pytest.fixture(scope="module", autouse=True)
def _course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with course_in(make_course(tmp_path_factory.mktemp("course"))):
        feedback._asked.cache_clear()
        yield
        feedback._asked.cache_clear()


def with_mistake(check: Check, mistake: Named) -> Record:
    return record_of("ada", lambda one: mistake if one.name == check.name else right(one))


def page(record: Record, given: Manual = NOTHING) -> Page:
    return Page(feedback.page(record, given))


def section(shown: Page, name: str) -> str:
    """The text of one exercise's or question's part of the page."""
    return shown.of(f'//section[@aria-labelledby="{name.replace(".", "-")}"]')[0]


def rows(shown: Page, name: str) -> list[str]:
    return shown.of(f'//section[@aria-labelledby="{name.replace(".", "-")}"]//tbody/tr')


def bare(text: str) -> str:
    return squeeze(text.replace("`", ""))


class TestMistakes:
    @pytest.mark.parametrize(("check", "mistake"), MISTAKES, ids=lambda one: one.name)
    def test_everything_the_judge_said_is_there_and_no_answer(self, check: Check, mistake: Named) -> None:
        record = with_mistake(check, mistake)
        result = record.answers[check.name].result
        shown = page(record)
        words = section(shown, check.name)
        assert result.points < result.max_points
        assert f"{result.points} of {result.max_points} points" in words
        for message in result.messages:
            assert bare(message) in words
        for part in result.parts:
            row = next(row for row in rows(shown, check.name) if row.startswith(part.name))
            assert f"{part.earned} of {part.points}" in row
            assert {"ok": "right", "no": "not yet", "not tried": "not tried"}[part.status] in row
            visible_cases = [case for case in check.prepare(Rng(0)) if case.part == part.name and not case.hidden]
            assert all(case.title in row for case in visible_cases)
        assert squeeze(mistake.source) in words
        assert "Read again: " in words
        prose = "".join(shown.tree.xpath("//body//text()[not(ancestor::pre)]"))
        assert not body_of(check.reference) & {line.strip() for line in prose.splitlines()}

    def test_no_seed_no_flag_and_no_tensor_is_shown(self) -> None:
        record = with_mistake(*MISTAKES[0])
        record.flags = [Flag("forged", "", "Something for the instructor alone.")]
        shown = page(record).html
        assert not re.search(
            r"8675309|Something for the instructor|forged|digest|tensor\(\[|Traceback|autograder/", shown
        )

    def test_the_likely_mistake_stands_apart_from_what_was_tried(self) -> None:
        check = CHECKS["attention.scaled_dot_product_attention"]
        mistake = check.misconceptions[0]
        shown = page(with_mistake(check, mistake))
        assert shown.of('//*[@class="mistake"]') == [squeeze(f"The likely mistake {mistake.message}")]
        assert any(text.startswith("Tried: ") for text in shown.of('//p[@class="finding"]'))

    def test_words_between_backticks_are_code(self) -> None:
        shown = page(with_mistake(CHECKS[SOFTMAX], CHECKS[SOFTMAX].misconceptions[0]))
        assert "dim" in shown.of('//*[@class="mistake"]//code')
        assert "`" not in shown.of('//*[@class="mistake"]')[0]

    def test_who_is_right_reads_so_and_is_sent_nowhere(self) -> None:
        shown = page(record_of("ada"))
        assert "Every exercise is right. Well done." in shown.text
        assert "Graded on 2030-01-02 at 03:04 UTC." in shown.text
        assert "Read again" not in shown.text
        assert not shown.tree.xpath("//details[@open]")


class TestReadAgain:
    def record(self) -> Record:
        record = with_mistake(CHECKS[SOFTMAX], CHECKS[SOFTMAX].misconceptions[0])
        assert record.answers[SOFTMAX].result.read == f"{CHAPTER}#softmax"
        return record

    def test_names_the_section_where_the_books_address_is_unknown(self) -> None:
        shown = page(self.record())
        assert "Read again: From scores to weights." in section(shown, SOFTMAX)
        assert shown.links == []

    def test_leads_to_the_section_where_it_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COURSE_REPOSITORY_URL", "https://github.com/Ann/Course")
        assert page(self.record()).links == [f"https://ann.github.io/Course/book/chapters/{CHAPTER}.html#softmax"]

    def test_a_page_on_a_site_of_its_own_or_elsewhere(self) -> None:
        own = repository("https://github.com/ann/ann.github.io", {})
        assert page_url(own, CHAPTER, "why_scale") == f"https://ann.github.io/book/chapters/{CHAPTER}.html#why-scale"
        assert page_url(repository("https://git.example/ann/course", {}), CHAPTER) is None
        assert page_url(None, CHAPTER) is None


ENDINGS = {
    "time": "Time ran out while softmax was tried",
    "crash": "Python itself ended while softmax was tried",
    "memory": "softmax asked for more memory than there is",
    "flood": "softmax printed more than can be kept",
    "not tried": "This exercise could not be tried",
}


class TestCircumstances:
    @pytest.mark.parametrize("how", ENDINGS)
    def test_how_it_ended_is_said_in_plain_words(self, how: str) -> None:
        record = record_of("ada")
        answer = record.answers[SOFTMAX]
        lost = replace(answer.result, parts=[Part("values", 1, "not tried"), Part("stable", 1, "not tried")])
        record.answers[SOFTMAX] = replace(answer, how=how, result=lost)
        words = section(page(record), SOFTMAX)
        assert ENDINGS[how] in words
        assert ("It costs points in this exercise alone" in words) is (how != "not tried")
        assert not any(other in words for key, other in ENDINGS.items() if key != how)

    def test_an_exercise_without_a_verdict_earns_nothing_and_says_so(self) -> None:
        record = record_of("ada")
        del record.answers[SOFTMAX]
        shown = page(record)
        assert f"{SOFTMAX} 0 of 2 points" in squeeze(section(shown, SOFTMAX).replace(SOFTMAX, f"{SOFTMAX} "))
        assert "could not be tried" in section(shown, SOFTMAX)

    @pytest.mark.parametrize(
        ("instead", "sentence"),
        [
            ([SOFTMAX], "the course's softmax stood in for yours, so that its mistake is not counted twice."),
            (
                [SOFTMAX, "attention.causal_mask"],
                "the course's softmax and causal_mask stood in for yours, so that their mistakes are not counted "
                "twice.",
            ),
        ],
    )
    def test_follow_through_is_told(self, instead: list[str], sentence: str) -> None:
        record = record_of("ada")
        record.answers["attention.SelfAttention"].instead = instead
        assert f"While this was judged, {sentence}" in section(page(record), "attention.SelfAttention")

    def test_notes_and_repairs_are_told(self) -> None:
        record = record_of("ada", repairs=["The cell `attention-softmax` was put back."])
        record.answers[SOFTMAX].result.notes = ["Your code printed 3 lines."]
        shown = page(record)
        assert "Your code printed 3 lines." in section(shown, SOFTMAX)
        assert "The cell attention-softmax was put back." in shown.of("//li")

    def test_a_refused_submission_reads_why_and_what_to_do(self) -> None:
        shown = page(Record(CHAPTER, "ada", 1, "d", refused="The file is no notebook: it is a PDF."))
        assert "The file is no notebook: it is a PDF." in shown.text
        assert "What to do: open a fresh copy" in shown.text
        assert f"{CHAPTER}.ipynb" in shown.of("//code")
        assert not shown.tree.xpath("//section")
        assert "was tried" not in shown.text


class TestQuestions:
    def test_an_answer_awaits_grading(self) -> None:
        shown = page(record_of("ada", written={WHY: "Because.\n\nIt is so."}))
        words = section(shown, f"{WHY}-answer")
        assert "Awaits grading: up to 2 points" in words
        assert "Because. It is so." in words
        assert "Say why, in words: why_scale." in words
        assert "12 of 16 points; up to 2 more await grading by a person" in shown.text

    def test_one_that_was_not_given_does_not_wait(self) -> None:
        shown = page(record_of("ada", written={WHY: "YOUR ANSWER HERE"}))
        for name in (WHY, MASKS):
            assert "You left this question without an answer." in section(shown, f"{name}-answer")
        assert "await" not in shown.text

    def test_points_and_comment_of_the_grader(self) -> None:
        given = Manual({WHY: ManualGrade(1.5, "Good. <b>Say</b> what the gradient does.")})
        shown = page(record_of("ada", written={WHY: "Because."}), given)
        words = section(shown, f"{WHY}-answer")
        assert "1.5 of 2 points" in words
        assert "Good. <b>Say</b> what the gradient does." in words
        assert "13.5 of 16 points." in shown.text

    def test_points_of_a_check_that_a_grader_changed(self) -> None:
        check = CHECKS[SOFTMAX]
        record = with_mistake(check, check.misconceptions[0])
        shown = page(record, Manual({SOFTMAX: ManualGrade(1.0, "Half of it is right.")}, late_penalty=2))
        words = section(shown, SOFTMAX)
        assert "1 of 2 points" in words
        assert f"A grader set these points by hand; the checks gave {record.answers[SOFTMAX].result.points}." in words
        assert "Half of it is right." in words
        assert "2 points were taken off because the notebook came late." in shown.text
        assert "9 of 16 points" in shown.text

    def test_no_rubric_is_shown(self) -> None:
        words = page(record_of("ada", written={WHY: "x", MASKS: "y"})).text
        for question in REFLECTIONS.values():
            assert not [line for line in question.rubric.splitlines() if line.strip() and line.strip() in words]


class TestWhatStudentsWrite:
    def hostile(self) -> Record:
        record = record_of(HOSTILE, written={WHY: HOSTILE}, repairs=[HOSTILE], flags=[Flag("x", "", HOSTILE)])
        answer = record.answers[SOFTMAX]
        wrong = replace(answer.result, parts=[Part("values", 2, "no")], messages=[HOSTILE], notes=[HOSTILE])
        record.answers[SOFTMAX] = replace(answer, result=wrong, source=f"# {HOSTILE}\nx = '''{HOSTILE}'''")
        return record

    def test_is_shown_not_run(self) -> None:
        shown = page(self.hostile(), Manual({WHY: ManualGrade(None, HOSTILE), SOFTMAX: ManualGrade(None, HOSTILE)}))
        assert shown.text.count("<script>alert(1)</script> ]]> </style> {{ 7 * 7 }}") >= 8
        assert not re.search(r"[\u202a-\u202e\x00\x1b\ud800-\udfff]", shown.html)
        assert r"\u202eback\u202c ␛[31mred␛[0m ␀ \ud800" in shown.text
        assert in_order(shown.headings)

    def test_is_cut_where_it_is_too_long(self) -> None:
        record = record_of("ada", written={WHY: "word " * 200_000})
        record.answers[SOFTMAX].source = f"x = '{'a' * 1_000_000}'\n" + "y = 1\n" * 100_000
        record.answers[SOFTMAX].result = replace(record.answers[SOFTMAX].result, messages=["m" * 1_000_000])
        shown = page(record)
        assert len(shown.html) < 300_000
        assert re.search(r"This is shortened: [\d,]+ of 1,600,007 characters are shown\.", section(shown, SOFTMAX))
        assert "of 1,000,000 characters are shown." in section(shown, f"{WHY}-answer")

    def test_survives_writing_and_reading_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "page.html"
        feedback.write(self.hostile(), NOTHING, path)
        assert path.read_text(encoding="utf-8") == feedback.page(self.hostile(), NOTHING)

    def test_other_alphabets_and_joined_signs_are_left_alone(self) -> None:
        for text in ("Привет, 世界", "می‌خواهم", "👩‍💻", "a\tb\nc"):
            assert visible(text) == text

    def test_visible_reaches_every_text(self) -> None:
        made = all_visible(Answer(record_of("ada").answers[SOFTMAX].result, source="\x07", instead=["\x1b"]))
        assert (made.source, made.instead) == ("␇", ["␛"])
        assert all_visible({"\x00": ("\u202e", 1, None)}) == {"␀": ("\\u202e", 1, None)}

    def test_shortened_leaves_short_text_whole(self) -> None:
        assert shortened("a\nb") == ("a\nb", "")
        assert shortened("x" * 2_000)[0] == "x" * 1_000


class TestForm:
    def test_the_same_record_gives_the_same_page(self) -> None:
        assert feedback.page(record_of("ada"), NOTHING) == feedback.page(record_of("ada"), NOTHING)

    def test_headings_are_in_order_and_tables_have_heads(self) -> None:
        shown = page(with_mistake(*MISTAKES[0]))
        assert in_order(shown.headings)
        assert shown.tree.get("lang") == "en"
        assert shown.tree.xpath("//table") and not shown.tree.xpath("//table[not(thead/tr/th[@scope='col'])]")
        assert not shown.tree.xpath("//tbody/tr[not(th[@scope='row'])]")
        assert {href[1:] for href in shown.tree.xpath("//@href")} <= set(shown.tree.xpath("//@id"))
        assert len(shown.tree.xpath("//@id")) == len(set(shown.tree.xpath("//@id")))

    def test_a_name_that_is_missing_in_a_template_is_an_error(self) -> None:
        with pytest.raises(Exception, match="undefined"):
            template("feedback.html.j2").render()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_finds_no_fault(browser: Browser, tmp_path: Path, theme: str, width: int) -> None:
    record = record_of(
        "ada", lambda check: check.misconceptions[0], repairs=["A cell was put back."], written={WHY: "Yes."}
    )
    record.answers[SOFTMAX].how = "time"
    record.answers["attention.padding_mask"] = record_of("ada").answers["attention.padding_mask"]
    feedback.write(record, Manual({MASKS: ManualGrade(1, "Well said.")}), tmp_path / "page.html")
    with serve(tmp_path) as address, window(browser, theme, width) as context:
        assert visit(context, address, tmp_path, "page.html").faults == {}


def judged() -> Record:
    return record_of("ada", written={WHY: "Because.", MASKS: "Both."})


def submit(gradebook: Gradebook, student: str) -> None:
    """Let nbgrader know a student's graded notebook: the released one, which nobody changed."""
    gradebook.add_student(student)
    gradebook.add_submission(CHAPTER, student)
    target = nbgrader_course.folder("autograded") / student / CHAPTER / f"{CHAPTER}.ipynb"
    target.parent.mkdir(parents=True)
    shutil.copy(nbgrader_course.folder("release") / CHAPTER / f"{CHAPTER}.ipynb", target)


def grade_by_hand(gradebook: Gradebook) -> None:
    notebook = gradebook.find_submission_notebook(CHAPTER, CHAPTER, "ada")
    for grade in notebook.grades:
        if grade.name == "attention-why_scale-answer":
            grade.manual_score, grade.needs_manual_grade = 1.5, False
        if grade.name == "attention-softmax-check":
            grade.auto_score, grade.extra_credit, grade.needs_manual_grade = 2, 0.5, False
    for comment in notebook.comments:
        if comment.name == "attention-why_scale-answer":
            comment.manual_comment = "Well said."
    notebook.late_submission_penalty = 1
    gradebook.db.commit()


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A course in which nbgrader has two students and the course a record of one, and stock nbgrader's feedback."""
    folder = make_course(tmp_path_factory.mktemp("stock"))
    with course_in(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # nbgrader's own use of SQLAlchemy
        assert run_course("release", CHAPTER).exit_code == 0
        with Gradebook(nbgrader_course.database()) as gradebook:
            submit(gradebook, "ada")
            submit(gradebook, "bob")
            grade_by_hand(gradebook)
        judged().save(place(CHAPTER, "ada"))
        done = run_program("nbgrader", "generate_feedback", CHAPTER, cwd=folder)
        assert done.returncode == 0, done.stderr
        yield folder


@pytest.mark.slow
class TestStockNbgrader:
    def test_writes_our_page_where_there_is_a_record(self, graded: Path) -> None:
        written = feedback.place(CHAPTER, "ada").read_text(encoding="utf-8")
        assert feedback.place(CHAPTER, "ada").is_relative_to(graded)
        assert written == feedback.page(judged(), manual.of_student(CHAPTER, "ada"))
        assert "1.5 of 2 points" in section(Page(written), f"{WHY}-answer")
        assert "Well said." in section(Page(written), f"{WHY}-answer")
        assert "Awaits grading" in section(Page(written), f"{MASKS}-answer")

    def test_and_its_own_where_there_is_none(self, graded: Path) -> None:
        own = feedback.place(CHAPTER, "bob").read_text(encoding="utf-8")
        config = (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")
        stock = re.sub(r"^c\.GenerateFeedback\.exporter_class.*\n", "", config, flags=re.MULTILINE)
        assert stock != config
        other = Path(shutil.copytree(graded, graded.parent / "without"))
        (other / "nbgrader_config.py").write_text(stock, encoding="utf-8")
        done = run_program("nbgrader", "generate_feedback", CHAPTER, "--student", "bob", "--force", cwd=other)
        assert done.returncode == 0, done.stderr
        assert (other / "grading/feedback/bob" / CHAPTER / f"{CHAPTER}.html").read_text(encoding="utf-8") == own
        assert "Content-Security-Policy" not in own

    def test_what_people_gave_is_read_from_the_gradebook(self, graded: Path) -> None:
        given = manual.of_class(CHAPTER)
        assert given == {"ada": manual.of_student(CHAPTER, "ada"), "bob": manual.of_student(CHAPTER, "bob")}
        assert given["ada"] == Manual({SOFTMAX: ManualGrade(2.5), WHY: ManualGrade(1.5, "Well said.")}, 1)
        assert manual.of_student(CHAPTER, "nobody") == NOTHING
        assert manual.of_class("02_multi_head") == {}


def test_to_look_for_grades_makes_no_gradebook(tmp_path: Path) -> None:
    with course_in(make_course(tmp_path)):
        assert manual.of_class(CHAPTER) == {}
        assert manual.of_student(CHAPTER, "ada") == NOTHING
        assert not (tmp_path / "grading" / "gradebook.db").exists()


def test_a_page_leaves_the_programs_logging_alone() -> None:
    """In a new process: the styles are imported once."""
    code = (
        "import logging; from autograder.student_text import colours; before = list(logging.getLogger().handlers); "
        "colours(); assert logging.getLogger().handlers == before == [], logging.getLogger().handlers"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

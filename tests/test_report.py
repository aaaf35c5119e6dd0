"""The class report: right numbers from records and gradebook, a page to look at, and a table that is only a table."""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from autograder import report, report_files
from autograder.checks import find, of_chapter
from autograder.judge import Part
from autograder.manual import Manual, ManualGrade
from autograder.record import Flag, Record, place
from autograder.report import ClassReport, gather
from autograder.roster import shown
from autograder.sample import reference_source, students
from autograder.similar import Pair
from tests.browser import chromium, serve, visit, window
from tests.course_fixtures import CHAPTER, course_in, make_course, run_course, snapshot
from tests.records import HOSTILE, Page, in_order, record_of, right
from tests.test_editions import body_of

SOFTMAX = "attention.softmax"
ATTEND = "attention.scaled_dot_product_attention"
WHY = "attention.why_scale"
MASKS = "attention.choose_mask"
IGNORES, OVERFLOWS = (find(SOFTMAX).misconceptions[index] for index in (0, 2))
UNSCALED = find(ATTEND).misconceptions[0]


PAIRS = [Pair("ann", "=cmd()", 0.93, {SOFTMAX: 0.971})]
FLAG = Flag("claim", "attention-softmax-check", "The cell printed a score of its own.")
REPAIR = "The check of `softmax` was put back."
GIVEN = {
    "ann": Manual({WHY: ManualGrade(1.5), MASKS: ManualGrade(2)}),
    "bob": Manual({SOFTMAX: ManualGrade(1)}, late_penalty=0.5),
}


def the_class() -> list[Record]:
    """Five submissions: all right, one mistake, two, a time-out whose loss nothing explains, and a refused one."""
    ann = record_of("ann", written={WHY: "Because.", MASKS: "Both."}, flags=[FLAG])
    bob = record_of("bob", lambda check: IGNORES if check.name == SOFTMAX else right(check), repairs=[REPAIR])
    wrong = {SOFTMAX: IGNORES, ATTEND: UNSCALED}
    cmd = record_of(
        "=cmd()", lambda check: wrong.get(check.name, right(check)), written={WHY: "Yes."}, repairs=[REPAIR]
    )
    eve = record_of("eve", lambda check: OVERFLOWS if check.name == SOFTMAX else right(check))
    answer = eve.answers[SOFTMAX]
    lost = replace(answer.result, diagnoses=[], messages=["`softmax` of Eve did not finish."])
    eve.answers[SOFTMAX] = replace(answer, how="time", result=lost)
    return [ann, bob, cmd, eve, Record(CHAPTER, "zoe", 1, "d", refused="It is a PDF of Zoe's.")]


def whole() -> ClassReport:
    return gather(the_class(), GIVEN, pairs=PAIRS)


def nameless() -> ClassReport:
    return gather(the_class(), GIVEN, pairs=PAIRS, pseudonym=lambda student: f"Student {len(student)}{student[-1]}")


def lines(outcome: ClassReport) -> list[dict[str, str]]:
    return list(csv.DictReader(report_files.table(outcome).splitlines()))


@pytest.fixture(autouse=True)
def course(tmp_path: Path) -> Iterator[Path]:
    with course_in(make_course(tmp_path / "course")) as folder:
        yield folder


class TestNumbers:
    def test_points_join_checks_and_people(self) -> None:
        points = {row.student: (row.standing.points, row.standing.waiting) for row in whole().rows}
        lost = 12 - sum(a.result.points for a in the_class()[2].answers.values())
        assert lost > 0
        eve = sum(a.result.points for a in the_class()[3].answers.values())
        assert points == {
            "ann": (15.5, 0),  # 12 and 3.5 by hand
            "bob": (10.5, 0),  # 10, softmax set to 1 by hand, half a point off for being late
            "=cmd()": (12 - lost, 2),
            "eve": (eve, 0),
            "zoe": (0, 0),
        }

    def test_median_and_distribution_leave_out_who_was_refused(self) -> None:
        outcome = whole()
        assert [row.student for row in outcome.refused] == ["zoe"]
        assert dict(outcome.distribution)["15"] == dict(outcome.distribution)["10"] == 1
        assert sum(number for _, number in outcome.distribution) == 4
        assert [label for label, _ in outcome.distribution] == [str(points) for points in range(17)]
        ranked = sorted(row.standing.points for row in outcome.graded)
        assert outcome.median == (ranked[1] + ranked[2]) / 2

    def test_more_points_than_bars_share_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ClassReport, "max_points", 50.0)
        labels = [label for label, _ in whole().distribution]
        assert (labels[0], labels[-1], len(labels)) == ("0–2", "48–50", 17)

    def test_success_counts_students(self) -> None:
        found = {one.exercise: one for one in whole().success}
        softmax = found[SOFTMAX]
        assert (softmax.full, softmax.some, softmax.none) == (1, 2, 1)  # bob's point was given by hand
        assert {name: (passed, judged) for name, passed, judged in softmax.parts} == {
            "values": (2, 4),
            "stable": (1, 4),
        }
        assert [one.exercise for one in whole().success] == [check.name for check in of_chapter(CHAPTER)]

    def test_mistakes_are_counted_with_the_tutors_sentence(self) -> None:
        first, *others = whole().mistakes
        assert (first.exercise, first.name, first.message) == (SOFTMAX, IGNORES.name, IGNORES.message)
        assert first.students == ["=cmd()", "bob"]
        assert [(one.name, one.students) for one in others] == [(UNSCALED.name, ["=cmd()"])]

    def test_what_no_misconception_explains_is_listed(self) -> None:
        assert whole().unexplained == [("eve", SOFTMAX, "`softmax` of Eve did not finish.")]

    def test_sorted_by_name_or_by_points(self) -> None:
        assert [row.student for row in whole().rows] == ["=cmd()", "ann", "bob", "eve", "zoe"]
        ranked = gather(the_class(), GIVEN, by_points=True)
        points = [row.standing.points for row in ranked.rows]
        assert points == sorted(points, reverse=True)
        assert ranked.rows[0].student == "ann"


class TestPage:
    def test_says_everything(self) -> None:
        shown = Page(report_files.page(whole()))
        for words in (
            "5 submissions",
            IGNORES.message.replace("`", ""),
            "eve: attention.softmax, time ran out",
            "softmax of Eve did not finish.",
            FLAG.message,
            "ann and =cmd() 93 % softmax 97 %",
            "zoe: It is a PDF of Zoe's.",
            "The check of softmax was put back. =cmd(), bob",
            "1 all · 2 some · 1 none",
        ):
            assert words.replace(" ", "") in shown.text.replace(" ", ""), words
        assert shown.links == []
        assert in_order(shown.headings)

    def test_plots_are_drawn_to_scale_and_say_their_numbers(self) -> None:
        shown = Page(report_files.page(whole()))
        labels = shown.tree.xpath("//svg/@aria-label")
        assert "1 all, 2 some, 1 none" in labels
        assert any(label.startswith("Distribution of points: ") and "15 points, 1 student" in label for label in labels)
        (bar,) = shown.tree.xpath('//svg[@aria-label="1 all, 2 some, 1 none"]')
        assert [(rect.get("class"), rect.get("x"), rect.get("width")) for rect in bar.xpath("rect")] == [
            ("none", None, "100%"),
            ("full", "0.00%", "25.00%"),
            ("some", "25.00%", "50.00%"),
        ]

    def test_grades_stand_in_a_table(self) -> None:
        rows = Page(report_files.page(whole())).tree.xpath("//table[caption]/tbody/tr")
        texts = {row[0].text_content(): [cell.text_content() for cell in row[1:]] for row in rows}
        assert texts["ann"] == ["15.5", "2", "4", "1", "1", "4", "1.5", "2"]
        assert texts["=cmd()"][-2:] == ["–", "0"]
        assert texts["zoe"] == ["refused", *[""] * 7]

    def test_an_empty_class_of_findings_says_so(self) -> None:
        shown = Page(report_files.page(gather([record_of("ann")], {}, pairs=[]))).text
        for sentence in ("No known misconception", "No exercise ran out", "No flag was raised", "No two submissions"):
            assert sentence in shown

    def test_a_class_that_was_refused_as_a_whole_still_has_a_report(self) -> None:
        outcome = gather([Record(CHAPTER, "zoe", 1, "d", refused="A PDF.")], {})
        assert "zoe: A PDF." in Page(report_files.page(outcome)).text
        assert lines(outcome)[0]["refused"] == "A PDF."

    def test_hostile_words_are_shown_not_run(self) -> None:
        record = record_of(HOSTILE, repairs=[HOSTILE], flags=[Flag(HOSTILE, HOSTILE, HOSTILE)])
        record.answers[SOFTMAX].result = replace(
            record.answers[SOFTMAX].result, parts=find_parts(), messages=[HOSTILE], diagnoses=[]
        )
        shown = Page(report_files.page(gather([record], {}, pairs=[Pair(HOSTILE, HOSTILE, 1, {HOSTILE: 1})])))
        assert shown.text.count("<script>alert(1)</script> ]]> </style> {{ 7 * 7 }}") >= 8
        assert not re.search(r"[\u202a-\u202e\x00\x1b\ud800-\udfff]", shown.html)

    def test_holds_no_solution(self) -> None:
        lines = {line.strip() for line in "".join(Page(report_files.page(whole())).tree.xpath("//text()")).splitlines()}
        assert not {line for check in of_chapter(CHAPTER) for line in body_of(check.reference)} & lines


def find_parts() -> list[Part]:
    return [replace(part, status="no") for part in record_of("ann").answers[SOFTMAX].result.parts]


class TestTable:
    def test_one_line_a_student(self) -> None:
        table = {line["student"]: line for line in lines(whole())}
        assert table["ann"] | {"points": "15.5", "max points": "16", "awaits grading": "0"} == table["ann"]
        assert (table["ann"][SOFTMAX], table["ann"][WHY], table["ann"]["flags"]) == ("2", "1.5", FLAG.message)
        assert table["bob"][f"{SOFTMAX}: values"] == "0"
        assert table["bob"]["misconceptions"] == f"{SOFTMAX}: {IGNORES.name}"
        assert table["eve"]["stopped"] == f"{SOFTMAX}: time"
        assert table["'=cmd()"][WHY] == ""
        assert table["'=cmd()"]["nearly the same as"] == "ann (93%)"
        assert table["ann"]["nearly the same as"] == "'=cmd() (93%)"

    @pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "x;=cmd()", 'x",=cmd()', "＝1"])
    def test_no_cell_is_a_formula(self, name: str) -> None:
        outcome = gather([record_of(name, repairs=["=1"], flags=[Flag("x", "", "=2")])], {})
        for delimiter in (",", ";", "\t"):
            for row in csv.reader(report_files.table(outcome).splitlines(), delimiter=delimiter):
                assert not [cell for cell in row if cell.strip(" \t\"'")[:1] in "=+-@＝" and "'" not in cell and cell]

    def test_opens_in_excel_and_is_complete(self, tmp_path: Path) -> None:
        _, path = report_files.write(gather([record_of("李")], {}), tmp_path)
        raw = path.read_bytes()
        assert raw.startswith(b"\xef\xbb\xbf") and b"\r\n" in raw
        assert next(csv.DictReader(path.open(encoding="utf-8-sig", newline="")))["student"] == "李"


class TestAnonymous:
    def test_tells_no_name_and_nothing_that_a_student_wrote(self) -> None:
        for made in (report_files.page(nameless()), report_files.table(nameless())):
            for secret in ("ann", "bob", "cmd()", "eve", "Eve", "zoe", "Zoe", FLAG.message, "put back"):
                assert not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", made), secret

    def test_keeps_every_number(self) -> None:
        named, anonymous = whole(), nameless()
        assert sorted(r.standing.points for r in named.rows) == sorted(r.standing.points for r in anonymous.rows)
        assert anonymous.success == named.success
        assert anonymous.distribution == named.distribution

    def test_a_pseudonym_is_the_same_each_time_and_another_with_another_key(self, course: Path) -> None:
        first, again = report_files.pseudonyms(), report_files.pseudonyms()
        names = [f"student{number}" for number in range(200)]
        assert [first(name) for name in names] == [again(name) for name in names]
        assert len({first(name) for name in names}) == 200
        key = course / "grading" / "pseudonyms.key"
        assert key.stat().st_mode & 0o077 == 0
        key.unlink()
        assert report_files.pseudonyms()("ann") != first("ann")


def copies(name: str) -> list[Record]:
    """Two submissions with the same mistakes throughout: nobody else's, and no solution of the course's."""
    by_name = {student.name: student.sources for student in students(CHAPTER)}
    made = [record_of(student) for student in (f"{name} 1", f"{name} 2")]
    for record, sources in zip(made, (by_name["alike-1"], by_name["alike-2"]), strict=True):
        for exercise, answer in record.answers.items():
            answer.source = sources[exercise]
    return made


def bare(text: str) -> str:
    return "".join(text.split())


class TestSimilar:
    """Nothing here stands in for the finder of copies: what it finds must be what the report can show."""

    @pytest.mark.parametrize("name", ["copy", "Zoë [b]", "new\nline", "<b>"])
    def test_two_copies_are_found_and_shown_everywhere(self, name: str) -> None:
        found = the_class() + copies(name)
        alike = report.similar_pairs(found)
        first, second = (shown(f"{name} {number}") for number in (1, 2))
        assert [{pair.first, pair.second} for pair in alike] == [{first, second}]
        outcome = gather(found, GIVEN, pairs=alike)
        assert bare(f"{alike[0].first} and {alike[0].second} 100 %") in bare(Page(report_files.page(outcome)).text)
        table = {line["student"]: line["nearly the same as"] for line in lines(outcome)}
        assert table[first] == f"{second} (100%)" and table[second] == f"{first} (100%)"
        assert not any(other for student, other in table.items() if student not in (first, second))

    def test_who_wrote_what_the_course_itself_has_is_no_copy(self) -> None:
        check = find(SOFTMAX)
        for source in (reference_source(check), check.variants[2].source):
            pair = copies("copy")
            for record in pair:
                for answer in record.answers.values():
                    answer.source = ""
                record.answers[SOFTMAX].source = source
            assert report.similar_pairs([*the_class(), *pair]) == []
        known = report._known(CHAPTER)
        assert known[0][SOFTMAX].strip() == reference_source(check).strip()
        assert {variant.source for variant in check.variants} <= {one.get(SOFTMAX, "") for one in known}

    def test_the_released_code_is_no_evidence(self) -> None:
        assert run_course("release", CHAPTER).exit_code == 0
        stubs = report._stubs(CHAPTER)
        assert stubs.keys() == {check.name for check in of_chapter(CHAPTER)}
        assert "raise NotImplementedError" in stubs[SOFTMAX]

    def test_where_they_were_not_compared_the_report_says_so(self) -> None:
        assert "were not compared" in report_files.page(gather(the_class(), {}))

    def test_the_command_shows_a_sample_classs_copies(self, course: Path) -> None:
        for record in [*the_class(), *copies("copy")]:
            record.save(place(CHAPTER, record.identifier))
        assert run_course("report", CHAPTER).exit_code == 0
        page = Page((course / "grading" / "reports" / f"{CHAPTER}.html").read_text(encoding="utf-8"))
        assert bare("copy 1 and copy 2 100 %") in bare(page.text)


class TestCommand:
    def save(self) -> None:
        for record in the_class():
            record.save(place(CHAPTER, record.identifier))

    def test_says_where_the_report_is(self, course: Path) -> None:
        self.save()
        done = run_course("report", CHAPTER)
        assert done.exit_code == 0
        for kind in ("html", "csv"):
            path = course / "grading" / "reports" / f"{CHAPTER}.{kind}"
            assert path.exists() and str(path) in done.stdout
        assert "5 submissions" in done.stdout
        assert f"{IGNORES.name} (2)" in done.stdout
        assert not (course / "grading" / "gradebook.db").exists()

    def test_writes_where_it_is_told_and_keeps_an_anonymous_one_apart(self, course: Path, tmp_path: Path) -> None:
        self.save()
        for more in ((), ("--anonymous",)):
            done = run_course("report", CHAPTER, "--output", str(tmp_path / "out"), "--sort", "points", *more)
            assert done.exit_code == 0
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {f"{CHAPTER}{kind}.{end}" for kind in ("", "-anonymous") for end in ("html", "csv")}
        assert not (course / "grading" / "reports").exists()

    def test_without_a_record_it_says_what_to_do(self, course: Path) -> None:
        before = snapshot(course)
        done = run_course("report", CHAPTER)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"Grade the class first: `course grade {CHAPTER}`. Nothing was changed." in done.stderr
        assert snapshot(course) == before

    def test_a_chapter_that_does_not_exist_is_refused(self) -> None:
        done = run_course("report", "99_nothing")
        assert done.exit_code == 2
        assert f"The chapters are: {CHAPTER}." in done.stderr

    def test_a_record_that_cannot_be_read_is_named(self, course: Path) -> None:
        self.save()
        (course / "grading" / "records" / CHAPTER / "broken.json").write_text("{", encoding="utf-8")
        done = run_course("report", CHAPTER)
        assert done.exit_code == 0
        assert "Left out, because they cannot be read: broken.json." in done.stderr
        assert "broken.json" in (course / "grading" / "reports" / f"{CHAPTER}.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_finds_no_fault(browser: Browser, tmp_path: Path, theme: str, width: int) -> None:
    report_files.write(whole(), tmp_path)
    with serve(tmp_path) as address, window(browser, theme, width) as context:
        assert visit(context, address, tmp_path, f"{CHAPTER}.html").faults == {}

"""A hostile class in nbgrader's formgrader, our own pages and JupyterLab, in a real browser: nothing of it acts."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell
from playwright.sync_api import BrowserContext, Page, Route, expect

from autograder.checks import of_chapter
from autograder.sample import Student, reference_source, solve
from tests import spellings
from tests.browser import chromium, serve
from tests.conftest import ROOT
from tests.lab import CHAPTER, Lab, course_copy, jupyter_lab
from tests.spellings import ANSWERS, MARK

pytestmark = pytest.mark.slow

MATHJAX = ROOT / "book" / "_static" / "vendor" / "mathjax" / "tex-svg.js"
MATHJAX_URL = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/2.7.7/"
MATHJAX_2 = Path(os.environ.get("COURSE_MATHJAX_2", "/usr/share/javascript/mathjax"))
"""MathJax as nbgrader's pages ask for it, where it is installed; else the book's stands for it."""

PAGES = int(os.environ.get("COURSE_SPELLING_PAGES", "8"))
"""On so many pages the spellings of answers are tried; on one page, one may hide another."""

PROVOKE = """() => {
  const room = document.querySelector('#notebook-container, .jp-Notebook, main, body');
  for (const e of room.querySelectorAll('*')) {
    for (const kind of ['mouseover', 'mouseenter', 'focus', 'animationstart', 'toggle'])
      e.dispatchEvent(new Event(kind));
    if (e.closest('.panel-heading, .panel-footer')) continue;
    if (e.matches('a, area, button, summary, [onclick]')) e.dispatchEvent(new MouseEvent('click', {bubbles: true}));
    if (e.matches('form')) e.requestSubmit();
  }
}"""
"""Point at everything, follow every link, press every button, but for formgrader's own."""


@dataclass
class Watch:
    """What pages did that no page should do because of a student."""

    ran: set[str] = field(default_factory=set)
    dialogs: list[str] = field(default_factory=list)
    token: str = ""
    staying: bool = False
    """Whether a page is open that links, also our own, are not to lead away from."""

    def on(self, context: BrowserContext) -> None:
        """Watch everything that these windows ask for."""
        context.route("**/*", self.route)
        context.on("page", self.page)

    def page(self, page: Page) -> None:
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def provoke(self, page: Page) -> None:
        """Do to everything on a page what might make it act, and wait."""
        self.staying = True
        page.wait_for_timeout(300)
        page.evaluate(PROVOKE)
        page.wait_for_timeout(1200)
        self.staying = False

    def route(self, route: Route) -> None:
        url = route.request.url
        if "/api/" in urlsplit(url).path and MARK in url:  # JupyterLab makes links of paths in a traceback
            route.fulfill(status=404)
        elif f"/{MARK}/" in url or f"%2F{MARK}%2F" in url:
            self.ran.add(url.replace("%2F", "/").partition(f"/{MARK}/")[2].partition("/")[0].partition("?")[0])
            route.fulfill(status=204)
        elif self.staying and route.request.is_navigation_request():
            route.fulfill(status=204)
        elif url.startswith(MATHJAX_URL):
            name = urlsplit(url).path.partition("/2.7.7/")[2]
            if not MATHJAX_2.exists():
                route.fulfill(path=MATHJAX)
            elif name == "latest.js":  # says where the other parts lie
                parts = f"{MATHJAX_URL}MathJax.js?{urlsplit(url).query}"
                route.fulfill(
                    body=f"document.write('<script src=\"{parts}\"></script>')", content_type="text/javascript"
                )
            elif (MATHJAX_2 / name).is_file():  # its fonts may not be there
                route.fulfill(path=MATHJAX_2 / name)
            else:
                route.abort()
        elif url.startswith("http://127.0.0.1:"):
            # The instructor is known to the server, whatever on the page asks.
            route.continue_(headers=route.request.headers | {"Authorization": f"token {self.token}"})
        else:
            route.abort()


def in_a_thread(work: Callable[[], None]) -> None:
    """Playwright refuses to start beside an event loop, and tests that ran nbgrader in this process leave one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(work).result()


@contextmanager
def watched(token: str = "") -> Iterator[tuple[BrowserContext, Watch]]:
    """A window of a real browser, and what is seen of it."""
    watch = Watch(token=token)
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        watch.on(context)
        yield context, watch


def hostile(place: Path, name: str, answers: list[str]) -> None:
    """Hand in a notebook whose outputs, errors, metadata, attachments and answers are spellings."""
    released = nbformat.read(place / "notebooks" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    sources = {check.name: reference_source(check) for check in of_chapter(CHAPTER)}
    said = rf'<img src="x:" onerror="{spellings.script("verdict")}"> $$\href{{/{MARK}/verdict}}{{x}}$$'
    sources["attention.softmax"] = f"def softmax(x, dim=-1):\n    raise ValueError({said!r})"
    notebook = solve(released, Student(name, sources, answers=True))
    written = iter(answers)
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and marks.get("solution"):
            cell.source = next(written)
            cell.attachments = {"a.png": {"image/png": f'x" onerror="{spellings.script("attachment")}'}}
    notebook.cells += [new_code_cell(source) for source in spellings.cells()]
    notebook.metadata.update(spellings.metadata("notebook"))
    folder = place / "grading" / "submitted" / name / CHAPTER
    folder.mkdir(parents=True)
    (folder / f"{CHAPTER}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    for beside in ("notes.html", "notes.svg", "nbgrader_config.py"):
        (folder / beside).write_text(f"<script>{spellings.script('beside')}</script>", encoding="utf-8")
    (folder / "secret.txt").symlink_to("/etc/passwd")


@dataclass(frozen=True)
class Class:
    """A graded class, and the server that shows it."""

    place: Path
    lab: Lab

    def scores(self) -> dict[str, float]:
        """What the gradebook holds, by student."""
        listed = json.loads(self.lab.get(f"formgrader/api/submissions/{CHAPTER}"))
        return {one["student"]: one["score"] for one in listed}

    def ids(self) -> dict[str, str]:
        """What formgrader calls each notebook, by student."""
        listed = json.loads(self.lab.get(f"formgrader/api/submitted_notebooks/{CHAPTER}/{CHAPTER}"))
        return {one["student"]: one["id"] for one in listed}

    def autograded(self, student: str) -> Path:
        return self.place / "grading" / "autograded" / student / CHAPTER / f"{CHAPTER}.ipynb"

    def look(self, context: BrowserContext, student: str) -> Page:
        """Open a student's notebook in formgrader, and wait until it is drawn."""
        page = context.new_page()
        page.goto(f"{self.lab.url}formgrader/submissions/{self.ids()[student]}/?token={self.lab.token}")
        page.wait_for_function("() => window.MathJax && (window.MathJax.startup || window.MathJax.Hub)")
        page.evaluate(
            """() => MathJax.startup ? MathJax.startup.promise
                : new Promise((done) => MathJax.Hub.Queue(() => done(true))).then(() => true)"""
        )
        return page


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    place = course_copy(tmp_path_factory.mktemp("course"))
    texts = list(ANSWERS.values())
    parts = ["\n\n".join(texts[start::4]) for start in range(4)]
    hostile(place, "ada", parts[:2])
    hostile(place, "bob", parts[2:])
    environment = os.environ | {"COURSE_ROOT": str(place)}
    course = Path(sys.executable).parent / "course"
    done = subprocess.run([course, "grade", CHAPTER], env=environment, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with jupyter_lab(place, tmp_path_factory.mktemp("state")) as server:
        yield Class(place, server)


def test_what_was_handed_in_does_not_act_in_formgrader(graded: Class) -> None:
    before = graded.scores()

    def look() -> None:
        with watched(graded.lab.token) as (context, watch):
            for student in ("ada", "bob"):
                page = graded.look(context, student)
                # The page is drawn: the verdict is there, with the student's words in it, and so is the answer.
                expect(page.get_by_role("group", name="Result of the check attention.softmax").first).to_be_visible()
                answers = page.locator(".text_cell_render > .mathjax_ignore")
                expect(answers).to_have_count(2)
                expect(answers.first).to_contain_text(f"/{MARK}/")
                assert _live(page) == []
                watch.provoke(page)
                page.close()
        assert (sorted(watch.ran), watch.dialogs) == ([], [])

    in_a_thread(look)
    assert graded.scores() == before


def test_what_an_older_course_graded_does_not_act_in_formgrader(graded: Class) -> None:
    """The notebook as it lay in `autograded` before outputs were cleaned: it is shown as harmless as any other."""
    before = graded.scores()
    path = graded.autograded("bob")
    kept = path.read_bytes()
    ran: set[str] = set()
    dialogs: list[str] = []
    live: dict[int, list[str]] = {}

    def look() -> None:
        with watched(graded.lab.token) as (context, watch):
            for start in range(PAGES):
                answer = "\n\n".join(list(ANSWERS.values())[start::PAGES])
                source = nbformat.read(graded.place / "grading" / "source" / CHAPTER / path.name, as_version=4)
                path.chmod(0o644)
                path.write_text(json.dumps(spellings.put_into(source, answer)), encoding="utf-8")
                page = graded.look(context, "bob")
                live[start] = _live(page)
                watch.provoke(page)
                page.close()
        ran.update(watch.ran)
        dialogs.extend(watch.dialogs)

    try:
        in_a_thread(look)
    finally:
        path.write_bytes(kept)
    assert (sorted(ran), dialogs) == ([], [])
    assert {start: found for start, found in live.items() if found} == {}
    assert graded.scores() == before


def _live(page: Page) -> list[str]:
    """Elements that can act, and formulas that are set, within what a student wrote or made."""
    live: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('.tex2jax_ignore, .output, .input_area')].flatMap((place) =>
          [...place.querySelectorAll('*')].filter((e) =>
            e.matches('script, iframe, object, embed, a, form, input, button, style, link, meta, base, svg, math, '
              + 'mjx-container, [class*=MathJax], video, audio, details, img:not([src^="data:image/png;base64,"])')
            || [...e.attributes].some((a) => a.name.startsWith('on') || a.name === 'id')
          ).map((e) => e.outerHTML.slice(0, 200)))"""
    )
    return live


def test_our_own_formulas_are_set_and_points_and_comments_are_saved(graded: Class) -> None:
    """The other side: formgrader still works."""
    answer = "attention-why_scale-answer"

    def work() -> None:
        with watched(graded.lab.token) as (context, _):
            page = graded.look(context, "ada")
            assert page.locator("mjx-container, .MathJax_CHTML, .mjx-chtml").count() > 0
            points = page.locator(f"[id='{answer}']")
            page.wait_for_load_state("networkidle")  # what was given before has been fetched
            with page.expect_response(lambda reply: "/api/grade/" in reply.url):
                points.fill("1")
                points.blur()
            comment = page.locator(f"[id='{answer}-comment']")
            with page.expect_response(lambda reply: "/api/comment/" in reply.url):
                comment.fill("A <b>good</b> start.")
                comment.blur()
            page.close()

    in_a_thread(work)
    notebook = graded.ids()["ada"]
    grades = json.loads(graded.lab.get(f"formgrader/api/grades?submission_id={notebook}"))
    assert next(one for one in grades if one["name"] == answer)["manual_score"] == 1
    comments = json.loads(graded.lab.get(f"formgrader/api/comments?submission_id={notebook}"))
    assert "A <b>good</b> start." in [one["manual_comment"] for one in comments]


def test_our_own_pages_do_not_act(graded: Class) -> None:
    environment = os.environ | {"COURSE_ROOT": str(graded.place)}
    course = Path(sys.executable).parent / "course"
    done = subprocess.run(
        [course, "report", CHAPTER], env=environment, cwd=graded.place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pages = [f"feedback/{name}/{CHAPTER}/{CHAPTER}.html" for name in ("ada", "bob")] + [f"reports/{CHAPTER}.html"]

    def look() -> None:
        with watched() as (context, watch), serve(graded.place / "grading") as address:
            for path in pages:
                page = context.new_page()
                page.goto(f"{address}/{path}")
                expect(page.locator("body")).to_contain_text(f"/{MARK}/verdict")
                watch.provoke(page)
                page.close()
        assert (sorted(watch.ran), watch.dialogs) == ([], [])

    in_a_thread(look)


def test_what_was_handed_in_does_not_act_in_jupyterlab(graded: Class) -> None:
    """The live notebook, to which formgrader has a link."""

    def look() -> None:
        with watched(graded.lab.token) as (context, watch):
            page = context.new_page()
            path = graded.autograded("ada").relative_to(graded.place)
            page.goto(f"{graded.lab.url}lab/tree/{path}?token={graded.lab.token}", timeout=120_000)
            expect(page.get_by_text("| Idle")).to_be_visible(timeout=120_000)
            answer = page.locator(".jp-MarkdownOutput .mathjax_ignore").first
            answer.scroll_into_view_if_needed()
            expect(answer).to_contain_text("fetch(base_url")
            watch.provoke(page)
            assert answer.locator("mjx-container, a, img, input").count() == 0
        assert (sorted(watch.ran), watch.dialogs) == ([], [])

    in_a_thread(look)


def test_nbgraders_own_command_hands_on_nothing_else(graded: Class) -> None:
    """`nbgrader autograde` reads the submitted folder itself, and copies what lies beside a notebook."""
    before = {student: graded.autograded(student).read_bytes() for student in ("ada", "bob")}
    command = [sys.executable, "-m", "nbgrader", "autograde", CHAPTER, "--student=ada", "--force"]
    environment = os.environ | {"COURSE_ROOT": str(graded.place)}
    done = subprocess.run(command, env=environment, cwd=graded.place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = graded.autograded("ada").parent
    ours = [path.name for path in (graded.place / "grading" / "source" / CHAPTER).iterdir()]
    assert sorted(path.name for path in folder.iterdir()) == sorted(ours)
    notebooks: list[NotebookNode] = [
        nbformat.reads(text.decode(), as_version=4)
        for text in (before["ada"], (folder / f"{CHAPTER}.ipynb").read_bytes())
    ]
    assert notebooks[0] == notebooks[1]

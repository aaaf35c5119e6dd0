"""The notebook in JupyterLab and the class in formgrader, used as a student and an instructor would."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from autograder.checks import find, of_chapter
from tests.browser import chromium
from tests.lab import CHAPTER, Lab, course_copy, jupyter_lab, write_submission

EXERCISE = "attention.scaled_dot_product_attention"
MISCONCEPTION = "no scaling"
PICTURES = "COURSE_PICTURES"
"""A folder for screenshots, where a person wants to see them."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    place = course_copy(tmp_path_factory.mktemp("course"))
    notebook = write_submission(place, EXERCISE, MISCONCEPTION)
    environment = os.environ | {"COURSE_ROOT": str(place)}
    course = Path(sys.executable).parent / "course"
    graded = subprocess.run([course, "grade", CHAPTER], env=environment, cwd=place, capture_output=True, text=True)
    assert graded.returncode == 0, graded.stderr
    (place / "work.ipynb").write_bytes(notebook.read_bytes())
    with jupyter_lab(place, tmp_path_factory.mktemp("state")) as server:
        yield server


def test_a_check_in_jupyterlab_shows_its_feedback(lab: Lab) -> None:
    # In a thread of its own: tests that ran nbgrader in this process leave an event loop behind, and Playwright
    # refuses to start beside one.
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(_run_the_notebook, lab).result()


def _run_the_notebook(lab: Lab) -> None:
    message = next(slip.message for slip in find(EXERCISE).misconceptions if slip.name == MISCONCEPTION)
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto(f"{lab.url}lab/tree/work.ipynb?token={lab.token}", timeout=120_000)
        _run_all(page)
        verdict = page.get_by_role("group", name=f"Result of the check {EXERCISE}")
        expect(verdict).to_be_visible(timeout=120_000)
        expect(verdict).to_contain_text(f"{EXERCISE}: 3 of 4 points")
        expect(verdict).to_contain_text(message)
        expect(verdict).to_contain_text("Why divide by √d_k?")
        verdict.scroll_into_view_if_needed()
        if PICTURES in os.environ:
            page.screenshot(path=Path(os.environ[PICTURES]) / "jupyterlab-check.png")


def test_formgrader_lists_the_graded_chapter(lab: Lab) -> None:
    assignments = json.loads(lab.get("formgrader/api/assignments"))
    chapter = next(assignment for assignment in assignments if assignment["name"] == CHAPTER)
    assert chapter["num_submissions"] == 1
    assert chapter["max_code_score"] == sum(check.points for check in of_chapter(CHAPTER))
    submissions = json.loads(lab.get(f"formgrader/api/submissions/{CHAPTER}"))
    ada = next(submission for submission in submissions if submission["student"] == "ada")
    assert ada["autograded"]
    assert ada["needs_manual_grade"]
    assert 0 < ada["code_score"] < chapter["max_code_score"]


def _run_all(page: Page) -> None:
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=120_000)
    page.get_by_role("button", name="No", exact=True).click()  # no news of Jupyter
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()

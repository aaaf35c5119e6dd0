"""Run JupyterLab on a scratch copy of the course, as a student or an instructor would."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from autograder.checks import find, of_chapter
from autograder.sample import Student, reference_source, solve
from tests.conftest import ROOT

CHAPTER = "01_attention"
START_SECONDS = 90.0


def course_copy(place: Path) -> Path:
    """A course folder of its own: the same book and settings, and no grades yet."""
    shutil.copytree(ROOT / "book", place / "book", ignore=shutil.ignore_patterns("_static"))
    shutil.copytree(ROOT / "notebooks", place / "notebooks")
    shutil.copy(ROOT / "nbgrader_config.py", place)
    return place


def write_submission(place: Path, exercise: str, misconception: str) -> Path:
    """Hand in a notebook that is right but for one known mistake, and return it."""
    released = nbformat.read(place / "notebooks" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)

    sources = {check.name: reference_source(check) for check in of_chapter(CHAPTER)}
    sources[exercise] = next(slip.source for slip in find(exercise).misconceptions if slip.name == misconception)
    path = place / "grading" / "submitted" / "ada" / CHAPTER / f"{CHAPTER}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(solve(released, Student("ada", sources, answers=True)), path)
    return path


@dataclass(frozen=True)
class Lab:
    """A running server: its address, and what opens it."""

    url: str
    token: str

    def get(self, path: str) -> str:
        """The text at a path of the server."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return str(reply.read().decode("utf-8"))


@contextmanager
def jupyter_lab(place: Path, state: Path) -> Iterator[Lab]:
    """Serve a folder with JupyterLab on a free port of the loopback address."""
    folders = {name: str(state / name) for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    environment = os.environ | folders | {"COURSE_ROOT": str(place), "JUPYTERLAB_SETTINGS_DIR": str(state / "settings")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    log = (state / "log").open("w")
    server = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield _await(server, state)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:  # it waits for kernels that are still busy
            server.kill()
            server.wait()
        log.close()


def _await(server: subprocess.Popen[bytes], state: Path) -> Lab:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        for record in (state / "JUPYTER_RUNTIME_DIR").glob("jpserver-*.json"):
            facts = json.loads(record.read_text() or "{}")
            if facts.get("url"):
                return Lab(facts["url"], facts["token"])
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{(state / 'log').read_text()[-3000:]}", pytrace=False)

"""What several tests share: the built book, and how tests are dealt to processes that run side by side."""

import os

# Before anything imports torch: tests run in a process for each core, and further threads would only get in their way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from filelock import FileLock

from autograder.checks import Check, register

EXERCISES = set(register().checks)
ROOT = Path(__file__).parents[1]
BOOK = ROOT / "_build" / "html"
COMMAND = ["build", ".", "--toc", "book/_toc.yml", "-W", "-n", "--keep-going"]
SOURCES = (
    "_config.yml",
    "book/**/*",
    "solutions/**/*.py",
    "course/**/*.py",
    "autograder/**/*.py",
    "benchmarks/results/*",
)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook, and would else come first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one process what shares a costly fixture (a file) or remembered outcomes (an exercise)."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(exercise_of(item) or item.path.stem))


def exercise_of(item: pytest.Item) -> str:
    """The exercise that a test marked by_exercise is about, if there is one."""
    if item.get_closest_marker("by_exercise") and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        names = [one.name if isinstance(one, Check) else one for one in item.callspec.params.values()]
        return next((name for name in names if isinstance(name, str) and name in EXERCISES), "")
    return ""


def newest(paths: Iterable[Path]) -> float:
    return max((path.stat().st_mtime for path in paths if path.is_file()), default=0.0)


def is_stale() -> bool:
    """Whether the book is missing or older than its sources. COURSE_BUILT says that `make` has just built it."""
    front_door = BOOK / "index.html"
    if not front_door.exists():
        return True
    if os.environ.get("COURSE_BUILT") == "1":
        return False
    return front_door.stat().st_mtime < newest(path for pattern in SOURCES for path in ROOT.glob(pattern))


@pytest.fixture(scope="session")
def built_book() -> Path:
    """The folder of the book's HTML, built now if it is older than its sources."""
    BOOK.parent.mkdir(exist_ok=True)
    with FileLock(BOOK.parent / "build.lock"):  # one of the processes builds, the others wait for it
        if is_stale():
            build()
    return BOOK


def build() -> None:
    command = [sys.executable, "-m", "jupyter_book.cli.main", *COMMAND]
    build = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if build.returncode != 0:
        # A page that failed must not pass for built the next time.
        (BOOK / "index.html").unlink(missing_ok=True)
        pytest.fail(f"The book does not build:\n{build.stdout[-6000:]}", pytrace=False)

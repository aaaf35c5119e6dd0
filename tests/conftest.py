"""What several tests share: the built book."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

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
    if is_stale():
        command = [sys.executable, "-m", "jupyter_book.cli.main", *COMMAND]
        build = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if build.returncode != 0:
            # A page that failed must not pass for built the next time.
            (BOOK / "index.html").unlink(missing_ok=True)
            pytest.fail(f"The book does not build:\n{build.stdout[-6000:]}", pytrace=False)
    return BOOK

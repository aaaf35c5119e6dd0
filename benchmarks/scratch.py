"""A course in a scratch folder, to grade in: with the course's own settings, or with stock nbgrader's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from course.chapters import root

_STOCK = """
from nbgrader.converters import Autograde
c.Autograde.sanitize_preprocessors = Autograde.sanitize_preprocessors.default()
c.Autograde.autograde_preprocessors = Autograde.autograde_preprocessors.default()
"""


def make(place: Path, *, stock: bool = False) -> Path:
    """Copy the book and the settings.

    Args:
        place: the folder; it is made.
        stock: let nbgrader execute the notebooks itself, in an ordinary kernel, and believe what their cells show.
    """
    place.mkdir(parents=True)
    shutil.copytree(root() / "book", place / "book", ignore=shutil.ignore_patterns("_static"))
    shutil.copy(root() / "nbgrader_config.py", place)
    if stock:
        with (place / "nbgrader_config.py").open("a", encoding="utf-8") as config:
            config.write(_STOCK)
    return place


def program(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).parent / name)


def environment(place: Path) -> dict[str, str]:
    """Variables under which the course's programs work on this folder."""
    return os.environ | {"COURSE_ROOT": str(place)}


def call(command: list[str], place: Path, *, tolerant: bool = False) -> None:
    """Run one of the environment's programs on a course.

    Raises:
        SystemExit: it failed, and that is not to be tolerated.
    """
    done = subprocess.run(
        [program(command[0]), *command[1:]],
        env=environment(place),
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not tolerant:
        raise SystemExit(f"{' '.join(command)} failed; nothing was written:\n{done.stderr[-2000:]}")

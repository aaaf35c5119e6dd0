"""Derives the notebooks: the instructor's edition from the sources, the student's from that by nbgrader."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

from autograder import nbgrader_course
from autograder.catalogue import catalogue
from course.chapters import CourseError, root
from course.editions import instructor_edition
from course.files import write_whole


def release(chapter: str) -> list[Path]:
    """Write a chapter's two notebooks with their images, and enter it into the gradebook.

    Returns:
        The files whose content changed.

    Raises:
        CourseError: a source is faulty or a file cannot be written; then no file has changed.
    """
    nbgrader_course.require_free_gradebook()
    with _writing():
        (root() / "grading").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root() / "grading", prefix=".release-") as staging:
            derived = derive(chapter, Path(staging), nbgrader_course.database())
            return [path for path, content in derived.items() if _replace(path, content)]


def drifted(chapter: str) -> list[Path]:
    """The student's files of a chapter that are not what their sources give; writes nothing."""
    with tempfile.TemporaryDirectory() as staging:
        derived = derive(chapter, Path(staging), f"sqlite:///{staging}/gradebook.db")
    student = [path for path in derived if path.is_relative_to(nbgrader_course.folder("release"))]
    return [path for path in student if not path.exists() or path.read_bytes() != derived[path]]


def derive(chapter: str, staging: Path, gradebook: str) -> dict[Path, bytes]:
    """Make both notebooks, and the images beside them, under `staging`.

    Returns:
        The final path of each file, with its content.
    """
    source = staging / "source" / chapter / f"{chapter}.ipynb"
    source.parent.mkdir(parents=True)
    notebook, images = instructor_edition(chapter, catalogue(chapter))
    nbformat.write(notebook, source)
    for name, image in images.items():
        shutil.copyfile(image, source.parent / name)
    config = nbgrader_course.configuration()
    config.CourseDirectory.update(
        root=str(staging), source_directory="source", release_directory="release", db_url=gradebook
    )
    fault = nbgrader_course.run(nbgrader_course.api(config).generate_assignment, chapter)
    if fault:
        raise CourseError(f"nbgrader could not release {chapter}: {fault}. No file was changed.")
    return {
        nbgrader_course.folder(step) / chapter / path.name: path.read_bytes()
        for step in ("source", "release")
        for path in sorted((staging / step / chapter).iterdir())
    }


def _replace(path: Path, content: bytes) -> bool:
    """Write a file whole or not at all; says whether its content changed."""
    if path.exists() and path.read_bytes() == content:
        return False
    write_whole(path, lambda temporary: temporary.write_bytes(content))
    return True


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or root()
        raise CourseError(f"Cannot write {place}: {error.strerror}. Nothing was changed.") from error

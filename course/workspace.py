"""Where the student's own library lies: the package `workspace`, beside the course."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from course.chapters import CourseError, root

PACKAGE = "workspace"


def folder() -> Path | None:
    """The package's folder, in the course's or in `COURSE_WORKSPACE`; None if that is set to nothing."""
    place = os.environ.get("COURSE_WORKSPACE")
    if place is None:
        return root() / PACKAGE
    return Path(place) / PACKAGE if place else None


@contextmanager
def importable(place: Path) -> Iterator[None]:
    """Within the block `workspace` is the package in this folder, read anew; afterwards it is what it was."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == PACKAGE}
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, str(place.parent))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(place.parent))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(before)


def module(name: str) -> ModuleType:
    """A module of the student's own library, such as `transformer`.

    Raises:
        CourseError: there is none yet, or it cannot be imported.
    """
    place = folder()
    if place is None or not (place / f"{name}.py").exists():
        raise CourseError(
            f"There is no {PACKAGE}/{name}.py: nothing of yours from that part has passed its check. Work through the "
            "notebook and run its checks, or leave out --mine."
        )
    try:
        with importable(place):
            return importlib.import_module(f"{PACKAGE}.{name}")
    except Exception as error:
        raise CourseError(f"{place / name}.py cannot be imported: {type(error).__name__}: {error}") from error

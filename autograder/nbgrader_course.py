"""nbgrader on this course's folders, with its failures turned into sentences."""

import os
import re
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbgrader.apps import NbGraderAPI
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SAWarning
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from course.chapters import CourseError, root

# nbgrader's own use of SQLAlchemy; nothing for our user to do. For good: what a `with` silences, a thread may undo.
warnings.filterwarnings("ignore", category=SAWarning)

LOCK_SECONDS = 2.0


def configuration() -> Config:
    """The settings of `nbgrader_config.py`.

    Raises:
        CourseError: there is none, or nbgrader cannot work where it is.
    """
    _require_plain_path()
    path = root() / "nbgrader_config.py"
    if not path.exists():
        raise CourseError(
            f"{path} is missing, so this is not the course's folder. Run `course` there. Nothing was changed."
        )
    config: Config = PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
    return config


def _require_plain_path() -> None:
    """nbgrader looks for notebooks by patterns, and does not escape the course's own folder in them."""
    odd = sorted(set(str(root())) & set("*?["))
    if odd:
        signs = " and ".join(f"`{sign}`" for sign in odd)
        raise CourseError(
            f"The path of the course's folder, {root()}, holds {signs}. nbgrader takes that for a pattern: it would "
            "find no notebook to release or grade, or another course's, and formgrader would show none. Move the "
            "folder, or give it another name. Nothing was changed."
        )


def folder(step: str) -> Path:
    """Where nbgrader keeps a step's files: `source`, `release`, `submitted`, `autograded` or `feedback`."""
    settings = configuration().CourseDirectory
    return Path(str(settings.root), str(settings[f"{step}_directory"]))


def database() -> str:
    """The gradebook's URL."""
    return str(configuration().CourseDirectory.db_url)


def api(config: Config | None = None) -> NbGraderAPI:
    """nbgrader's programming interface on this course, or on another set of folders."""
    return NbGraderAPI(config=config or configuration())


def require_free_gradebook() -> None:
    """See that the gradebook can be written before anything is changed.

    Raises:
        CourseError: another process is writing it, or it cannot be written at all.
    """
    url = make_url(database())
    if url.get_backend_name() != "sqlite" or not url.database or not Path(url.database).exists():
        return
    try:
        if not os.access(url.database, os.W_OK):  # SQLite would say so only at the first change
            raise sqlite3.OperationalError("it is read-only")
        connection = sqlite3.connect(url.database, timeout=LOCK_SECONDS)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.Error as error:
        if "locked" in str(error):
            why = "is locked by another process. Close what uses it (formgrader, another `course grade`) and try again"
        else:
            why = f"cannot be written ({error}). Check the permissions of its folder"
        raise CourseError(f"The gradebook {url.database} {why}. Nothing was changed.") from error


def run(step: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any) -> str:
    """Call one step of nbgrader's interface.

    Returns:
        An empty string, or what went wrong: the last line of nbgrader's log that says so.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # nbgrader's own use of SQLAlchemy; nothing for our user to do
        outcome = step(*args, **kwargs)
    if outcome["success"]:
        return ""
    return _reason(f"{outcome.get('error') or ''}\n{outcome.get('log') or ''}")


def _reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    # The last exception that is not nbgrader's own "see the traceback above".
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line) and "Please see" not in line]
    return (named or lines or ["nbgrader gave no reason"])[-1].rstrip(".")

"""nbgrader's preprocessor for trusted grading: the outputs and the scores of a submission come from its record."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nbformat
from nbformat.notebooknode import NotebookNode
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool

from autograder import nbgrader_course
from autograder.grading import Options, desk_for, executed_path
from course.chapters import CourseError


class Verdicts(NbGraderPreprocessor):  # type: ignore[misc]
    """Stands where nbgrader would execute a notebook: hands on the executed notebook that belongs to the record.

    Where there is no record of this submission yet, it is examined now. So `nbgrader autograde` and formgrader give
    the same points as `course grade`.
    """

    unsafe = Bool(False, help="Examine without a jail.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Replace the notebook by the executed one."""
        chapter, student = resources["nbgrader"]["assignment"], resources["nbgrader"]["student"]
        folder = nbgrader_course.folder("submitted") / student / chapter
        desk = desk_for(chapter, Options(unsafe=True) if self.unsafe else None)
        record = desk.kept(folder)
        if record is None:
            desk.warm()
            with ThreadPoolExecutor(1) as thread:  # formgrader calls from within an event loop
                record = thread.submit(asyncio.run, desk.examined(folder)).result()
        if record.refused:
            raise CourseError(record.refused)
        return _with_outputs(nb, nbformat.read(executed_path(chapter, student), as_version=4)), resources


def _with_outputs(nb: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The executed notebook, with the checksums that nbgrader has put beside its cells."""
    marks = {
        cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader
        for cell in nb.cells
        if "grade_id" in cell.metadata.get("nbgrader", {})
    }
    for cell in executed.cells:
        ours = cell.metadata.get("nbgrader", {})
        if ours.get("grade_id") in marks:
            cell.metadata.nbgrader = marks[ours["grade_id"]]
    return executed

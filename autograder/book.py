"""A Sphinx extension: the directives `exercise` and `reflection` show a task with what the register knows of it."""

import inspect
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from autograder.catalogue import card
from autograder.checks import UnknownExerciseError, find, register
from course.editions import ReflectionCard


class _Task(SphinxDirective):
    """A box with a title, a line of facts and the task's text."""

    required_arguments = 1
    has_content = True
    kind: ClassVar[str]

    def _box(self, title: list[nodes.Node], facts: str) -> nodes.admonition:
        name = self.arguments[0]
        box = nodes.admonition(classes=["task", self.kind], ids=[nodes.make_id(f"{self.kind}-{name}")])
        box += nodes.title("", "", *title)
        box += nodes.paragraph("", facts, classes=["task-facts"])
        self.state.nested_parse(self.content, self.content_offset, box)
        return box

    def _append(self, box: nodes.admonition, myst: str) -> None:
        lines = StringList(myst.splitlines(), source=self.get_source_info()[0])
        self.state.nested_parse(lines, self.content_offset, box)


class Exercise(_Task):
    """`:::{exercise} attention.softmax`: the task, its points, difficulty and time, and the solution, folded."""

    kind = "exercise"

    def run(self) -> list[nodes.Node]:
        """Make the box; an exercise that does not exist is an error at this place in the page."""
        name = self.arguments[0]
        try:
            check = find(name)
        except UnknownExerciseError as error:
            raise self.error(str(error)) from error
        box = self._box([nodes.Text("Exercise: "), nodes.literal(name, name)], card(check).facts)
        self.env.note_dependency(str(Path(inspect.getfile(check.reference)).resolve()))
        source = inspect.getsource(check.reference)
        self._append(box, f"::::{{dropdown}} Solution of `{name}`\n```python\n{source}```\n::::")
        return [box]


class Reflection(_Task):
    """`:::{reflection} attention.why_scale`: a question that is graded by hand."""

    kind = "reflection"

    def run(self) -> list[nodes.Node]:
        """Make the box; a question that does not exist is an error at this place in the page."""
        name = self.arguments[0]
        questions = register().reflections
        if name not in questions:
            raise self.error(f"There is no question {name!r}. The questions are: {', '.join(questions)}.")
        question = questions[name]
        return [self._box([nodes.Text("Question")], ReflectionCard(name, question.points, question.rubric).facts)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Enter the directives."""
    app.add_directive("exercise", Exercise)
    app.add_directive("reflection", Reflection)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The one place that turns a result into words on a page or in a terminal."""

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from autograder.judge import Result
from course.chapters import section_title


def to_html(result: Result) -> str:
    """The result as an HTML fragment: points, parts, message, where to read again. Everything is escaped."""
    return template("result.html.j2").render(**_view(result))


def to_text(result: Result) -> str:
    """The same as plain text."""
    return template("result.txt.j2").render(**_view(result))


def _view(result: Result) -> dict[str, object]:
    chapter, _, label = result.read.partition("#")
    complete = bool(result.parts) and result.points == result.max_points
    return {
        "result": result,
        "complete": complete,
        "section": section_title(chapter, label) if label and not complete else "",
        "chapter": chapter,
    }


@cache
def template(name: str) -> Template:
    """A template of this package; one that makes HTML escapes all that it is given."""
    loader = PackageLoader("autograder", "templates")
    environment = Environment(
        loader=loader,
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    return environment.get_template(name)


def _code(text: str) -> Markup:
    """Escape a message, and set what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))

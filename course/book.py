"""A Sphinx extension: the book needs no other server, and links to a repository only if it has one.

Settings:
    COURSE_REPOSITORY_URL: an environment variable, such as https://github.com/OWNER/REPOSITORY. It overrides
        `repository: url:` in `_config.yml`. With neither, no page links to a repository or to Colab.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

from course.chapters import CourseError
from course.repository import Repository, colab_url, repository

CODE_BEHIND_PAGES = ("solutions/**/*.py", "course/**/*.py", "autograder/**/*.py", "benchmarks/results/*.json")
UNUSED_ASSETS = ("scripts/fontawesome.js*", "**/*.js.map", "**/*.css.map", "vendor/**/*.ttf")

FRONT_DOOR = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={page}">
<link rel="icon" href="_static/favicon.svg">
<title>{title}</title>
</head>
<body><main><h1>{title}</h1><p><a href="{page}">Open the book</a></p></main></body>
</html>
"""


def code_digest(root: Path) -> str:
    """Fingerprint what the pages' code imports or reads, so that a change to it makes Sphinx run them again.

    Args:
        root: the repository's folder.
    """
    digest = hashlib.sha256()
    for path in sorted(path for pattern in CODE_BEHIND_PAGES for path in root.glob(pattern)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _configured_repository(config: Config) -> Repository | None:
    try:
        return repository(config.html_theme_options.get("repository_url") or "", os.environ)
    except CourseError as error:
        raise ConfigError(str(error)) from error


def configure(app: Sphinx, config: Config) -> None:
    """Set what depends on the repository's URL and on the code behind the pages."""
    options: dict[str, Any] = config.html_theme_options
    repo = _configured_repository(config)
    options["use_repository_button"] = repo is not None
    options["repository_url"] = repo.url if repo else ""
    config["course_code_digest"] = code_digest(Path(app.srcdir))


def add_colab_button(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Put "Open in Colab" at the head of a chapter's page."""
    url = colab_url(_configured_repository(app.config), pagename)
    if url is not None:
        button = {
            "type": "link",
            "url": url,
            "text": "Open in Colab",
            "tooltip": "Work on this chapter's notebook in Google Colab",
            "icon": "fas fa-play",
            "label": "colab",
        }
        context["header_buttons"].insert(0, button)


def drop_idle_mathjax(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Load MathJax only where there is a formula: Sphinx also loads it wherever a page below has one."""
    if doctree is not None and any(isinstance(node, nodes.math | nodes.math_block) for node in doctree.findall()):
        return
    scripts: list[Any] = context["script_files"]
    scripts[:] = [script for script in scripts if "mathjax" not in _source_of(script).lower()]


def _source_of(script: Any) -> str:
    """Give a script's file name, or its text where it stands in the page itself."""
    return str(script.filename or script.attributes.get("body", ""))


def mend_roles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Take back the role of list from a bibliography: docutils gives it no list items."""
    context["body"] = context.get("body", "").replace(' role="list" class="citation-list"', ' class="citation-list"')


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Drop the assets that no page loads, and lead from the site's root to the front page."""
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    for path in (path for pattern in UNUSED_ASSETS for path in static.glob(pattern)):
        path.unlink()
    page = app.builder.get_target_uri(app.config.root_doc)
    front_door = FRONT_DOOR.format(page=page, title=app.config.html_title)
    (Path(app.outdir) / "index.html").write_text(front_door, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the extension to a build."""
    app.add_config_value("course_code_digest", "", "env", types=(str,))
    app.connect("config-inited", configure)
    app.connect("html-page-context", add_colab_button, priority=600)
    app.connect("html-page-context", drop_idle_mathjax, priority=600)
    app.connect("html-page-context", mend_roles)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

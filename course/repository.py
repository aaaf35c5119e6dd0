"""Where the course is published, if anyone has said so, and what follows from it."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import yaml

from course.chapters import CourseError, root

REPOSITORY_VARIABLE = "COURSE_REPOSITORY_URL"
COLAB = "https://colab.research.google.com/github"
PUBLISHED_BRANCH = "published"
"""The branch that holds the student notebooks, written by the publish workflow."""


class Repository(NamedTuple):
    """Where the course is published.

    Attributes:
        url: without a slash at the end.
        owner: the account that it belongs to.
        name: the repository's own name.
    """

    url: str
    owner: str
    name: str

    @property
    def on_github(self) -> bool:
        """Whether Colab can open its notebooks."""
        return self.url.startswith("https://github.com/")


def repository(configured: str, environment: Mapping[str, str]) -> Repository | None:
    """Find where the course is published, or None where nobody has said.

    Args:
        configured: `repository: url:` of `_config.yml`.
        environment: the process's variables; REPOSITORY_VARIABLE overrides `configured`.

    Raises:
        CourseError: the address has not the form of a repository's.
    """
    url = environment.get(REPOSITORY_VARIABLE, "").strip() or configured.strip()
    if not url:
        return None
    url = url.rstrip("/").removesuffix(".git")
    match = re.fullmatch(r"https://[\w.-]+/([\w.-]+)/([\w.-]+)", url)
    if match is None:
        raise CourseError(
            f"The repository's URL is {url!r}. Write it as https://github.com/OWNER/REPOSITORY, in the "
            f"environment variable {REPOSITORY_VARIABLE} or under `repository: url:` in _config.yml."
        )
    return Repository(url, *match.groups())


def of_course() -> Repository | None:
    """Where this course is published, as `_config.yml` or the environment says."""
    path = root() / "_config.yml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return repository((settings.get("repository") or {}).get("url") or "", os.environ)


def colab_url(repo: Repository | None, pagename: str) -> str | None:
    """Say where Colab opens the student notebook of a page; None for a page or a repository without one.

    Args:
        repo: where the course is published.
        pagename: the page's name in Sphinx, such as `book/chapters/01_attention`.
    """
    chapter = re.fullmatch(r"book/chapters/(\d\d_\w+)", pagename)
    if repo is None or chapter is None or not repo.on_github:
        return None
    name = chapter[1]
    return f"{COLAB}/{repo.owner}/{repo.name}/blob/{PUBLISHED_BRANCH}/notebooks/{name}/{name}.ipynb"


def page_url(repo: Repository | None, chapter: str, label: str = "") -> str | None:
    """Say where a chapter's page, or a section of it, is published; None where that is not known.

    Args:
        repo: where the course is published; on GitHub, its book is on GitHub Pages.
        chapter: the chapter, such as `01_attention`.
        label: the section's label, such as `why-scale`.
    """
    if repo is None or not repo.on_github:
        return None
    site = f"https://{repo.owner.lower()}.github.io"
    folder = "" if repo.name.lower() == site.removeprefix("https://") else f"/{repo.name}"
    anchor = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")  # as docutils makes an id from a label
    return f"{site}{folder}/book/chapters/{chapter}.html{'#' * bool(anchor)}{anchor}"

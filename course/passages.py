"""What can be searched: the sections of the course's own pages, and what installed libraries say of their functions."""

import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from course.chapters import plain, root


@dataclass(frozen=True)
class Passage:
    """A piece of text that a search can find.

    Args:
        title: of the page, or the module.
        section: its heading or name; empty for what stands before a page's first section.
        text: in plain words.
        place: where to read on.
    """

    title: str
    section: str
    text: str
    place: str

    @property
    def name(self) -> str:
        """Title and section."""
        return f"{self.title} > {self.section}" if self.section else self.title

    @property
    def words(self) -> str:
        """What a search reads of it: the heading says what the text is about."""
        return f"{self.section or self.title}. {self.text}"


@dataclass(frozen=True)
class Source:
    """A body of passages.

    Args:
        says: what it is, for people.
        longest: how many tokens of a passage are read.
        made_from: what the passages follow from: as long as it is the same, so are they.
        passages: reads them.
    """

    says: str
    longest: int
    made_from: Callable[[], object]
    passages: Callable[[], list[Passage]]

    @property
    def key(self) -> str:
        """A name that is another one whenever the passages are."""
        return hashlib.sha256(json.dumps(self.made_from(), sort_keys=True).encode()).hexdigest()[:16]


def pages() -> list[Passage]:
    """The sections of the book's pages, and the entries of its glossary."""
    book = root() / "book"
    paths = [*sorted(book.glob("chapters/*.md")), *sorted(book.glob("*.md"))]
    return [
        passage
        for path in paths
        for passage in sections(path.read_text("utf-8"), path.relative_to(root()).as_posix())
        if re.search(r"\w", passage.text)
    ]


def sections(source: str, place: str) -> Iterator[Passage]:
    """Split a page at its headings; a glossary, at its terms.

    Args:
        source: in MyST Markdown.
        place: its file, from the course's folder.
    """
    title, section, first, words = "", "", 1, list[str]()
    in_glossary = False
    for number, line in _prose(source):
        heading = re.match(r"(#+) +(.+)", line)
        term = in_glossary and bool(re.match(r"\S", line))
        in_glossary = (in_glossary or line.endswith("{glossary}")) and heading is None
        if line.endswith("{glossary}"):
            continue
        if heading is None and not term:
            words.append(line)
            continue
        yield Passage(title, section, _without_markup(words), f"{place}:{first}")
        name = plain(_without_markup([line if heading is None else heading[2]]))
        title, section = (name, "") if heading is not None and heading[1] == "#" else (title, name)
        first, words = number, []
    yield Passage(title, section, _without_markup(words), f"{place}:{first}")


def _prose(source: str) -> Iterator[tuple[int, str]]:
    """The lines that people read, with their numbers: no settings, no code, no formulas that stand alone."""
    closing = ""
    for number, line in enumerate(source.splitlines(), 1):
        if closing:
            closing = "" if re.match(closing, line) else closing
        elif number == 1 and line == "---":
            closing = "---$"
        elif re.match(r"```+(\{code-cell\}|\{mermaid\}|\w|$)", line):
            closing = "```+ *$"
        elif line.startswith("$$"):
            closing = "" if re.match(r"\$\$.*\$\$$", line) else r".*\$\$( \(.+\))?$"
        elif line.endswith("{glossary}"):
            yield number, line
        elif opening := re.match(r"(?::{3,}|`{3,})(?:\{[\w-]+\})? *(.*)$", line):
            if not line.startswith("```{figure}"):
                yield number, opening[1]
        elif not re.match(r"(:[\w-]+:|\([\w-]+\)=|%|\|[ :|-]+$)", line):
            yield number, line


def _without_markup(lines: Sequence[str]) -> str:
    text = " ".join(" ".join(lines).split())
    text = re.sub(r" ?\{cite:p\}`[^`]*`", "", text)
    text = re.sub(r"\{cite:t\}`([a-z]+)[^`]*`", lambda found: found[1].capitalize(), text)
    text = re.sub(r"\{[\w:]+\}`([^`<]+?)(?: <[^`>]*>)?`", r"\1", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(?<!\w)[*_]{1,2}(\S(?:[^*]*?\S)?)[*_]{1,2}(?!\w)", r"\1", text)
    return re.sub(r"[`$|]", "", text).strip()


LIBRARIES = ("torch", "numpy", "matplotlib", "pandas")
"""Those whose docstrings are searched beside Python's own: the same as in the corpus, which is slow to import."""


def docstrings() -> list[Passage]:
    """The first paragraph of every docstring, under the name of what it explains."""
    from course import corpora  # takes seconds

    splits = corpora.load("docstrings")
    return [
        Passage(row["module"], row["name"].removeprefix(row["module"]).strip("."), row["summary"], row["name"])
        for split in splits.values()
        for row in split.select_columns(["module", "name", "summary"])
    ]


def _versions() -> Mapping[str, str]:
    source = (Path(__file__).parent / "corpora" / "docstrings.py").read_bytes()
    versions = {name: metadata.version(name) for name in LIBRARIES}
    return versions | {"python": platform.python_version(), "source": hashlib.sha256(source).hexdigest()}


def _page_words() -> list[tuple[str, ...]]:
    return [(passage.title, passage.section, passage.text, passage.place) for passage in pages()]


SOURCES = {
    "pages": Source("the course's pages", 128, _page_words, pages),
    "docstrings": Source("the docstrings of the installed libraries", 64, _versions, docstrings),
}

"""Turns the book's MyST Markdown into plain Markdown, which every notebook program shows.

It knows the vocabulary that chapters are written in and refuses the rest, so that nothing is lost without a word.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from pybtex.database import Entry, parse_file

from course.chapters import CourseError

_ADMONITIONS = {"note": "Note", "tip": "Tip", "warning": "Warning", "important": "Important"}


@dataclass
class Block:
    """A piece of a Markdown cell: plain text, or a directive with its argument and body."""

    kind: str
    argument: str
    body: str


@dataclass
class Translator:
    """Translates the cells of one chapter; numbers its equations and remembers its images.

    Args:
        source: the chapter's file, for error messages and relative paths.
        bibliography: the BibTeX file that citations refer to.
    """

    source: Path
    bibliography: Path
    equations: dict[str, int] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Number the labelled equations in the order in which they stand."""
        labels = re.findall(r"^\$\$ \((.+)\)$", self.source.read_text(encoding="utf-8"), re.MULTILINE)
        self.equations = {label: number for number, label in enumerate(labels, 1)}

    def render(self, block: Block) -> str:
        """A block as plain Markdown."""
        match block.kind:
            case "":
                return self.inline(block.body).strip()
            case "figure":
                return self._figure(block)
            case "dropdown":
                body = self.inline(block.body).strip()
                title = re.sub(r"`([^`]+)`", r"<code>\1</code>", block.argument)  # Markdown stops at HTML
                return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
            case kind if kind in _ADMONITIONS or kind == "admonition":
                title = self.inline(block.argument) or _ADMONITIONS.get(kind, "")
                return _quoted(f"**{title}**\n\n{self.inline(block.body).strip()}")
            case kind:
                raise CourseError(f"{self.source}: notebooks have no form for the directive {{{kind}}}.")

    def inline(self, text: str) -> str:
        """Text with roles, targets and numbered equations, as plain Markdown."""
        inner = next((found for line in text.splitlines() if (found := _FENCE.match(line))), None)
        if inner:
            raise CourseError(f"{self.source}: notebooks have no form for {{{inner[2]}}} within another directive.")
        text = re.sub(r"^\([\w-]+\)=\s*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"^%.*\n?", "", text, flags=re.MULTILINE)
        text = re.sub(r"^\$\$ \((.+)\)$", lambda m: rf"\tag{{{self.equations[m[1]]}}} $$", text, flags=re.MULTILINE)
        text = re.sub(r"\[([^\]]+)\]\([\w./-]+\.md(?:#[\w-]+)?\)", r"\1", text)
        # Not after a word, a backtick or a brace: there the braces belong to code or to a formula.
        return re.sub(r"(?<![\w`}])\{([\w:]+)\}`([^`]+)`", self._role, text)

    def _role(self, match: re.Match[str]) -> str:
        role, content = match[1], match[2]
        titled = re.fullmatch(r"(.+?)\s*<(.+)>", content, re.DOTALL)
        words = titled[1] if titled else content
        roles: dict[str, Callable[[], str]] = {
            "term": lambda: words,
            "ref": lambda: f"*{words}*",
            "doc": lambda: f"*{words}*",
            "eq": lambda: f"({self._equation(content)})",
            "cite:p": lambda: f"({'; '.join(self._citation(key, '{}, {}') for key in content.split(','))})",
            "cite:t": lambda: "; ".join(self._citation(key, "{} ({})") for key in content.split(",")),
        }
        if role not in roles:
            raise CourseError(f"{self.source}: notebooks have no words for the role {{{role}}}`{content}`.")
        return roles[role]()

    def _equation(self, label: str) -> int:
        if label not in self.equations:
            raise CourseError(f"{self.source}: there is no equation labelled {label!r}.")
        return self.equations[label]

    def _citation(self, key: str, form: str) -> str:
        entries = parse_file(str(self.bibliography)).entries
        if key.strip() not in entries:
            raise CourseError(f"{self.source}: {self.bibliography.name} has no entry {key.strip()!r}.")
        entry = entries[key.strip()]
        words = form.format(_authors(entry).replace("{", "").replace("}", ""), entry.fields["year"])
        return f"[{words}]({entry.fields['url']})" if "url" in entry.fields else words

    def _figure(self, block: Block) -> str:
        alt = re.search(r"^:alt:\s*(.+)$", block.body, re.MULTILINE)
        caption = re.sub(r"^:[\w-]+:.*\n?", "", block.body, flags=re.MULTILINE).strip()
        # A file beside the notebook: JupyterLab shows no SVG that is attached to a cell.
        image = self.source.parent / block.argument
        if not image.exists():
            raise CourseError(f"{self.source}: the figure {image} does not exist.")
        self.images[image.name] = image
        shown = f"![{alt[1] if alt else ''}]({quote(image.name)})"
        return f"{shown}\n\n{self.caption(caption)}" if caption else shown

    def caption(self, text: str) -> str:
        """The caption of a figure, set apart from the text around it."""
        return f"**Figure.** {self.inline(' '.join(text.split()))}"


_FENCE = re.compile(r"^(:{3,}|`{3,})\{([\w-]+)\}[ ]*(.*)$")


def blocks(text: str) -> Iterator[Block]:
    """Split a Markdown cell into plain text and directives, in order."""
    plain: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        opening = _FENCE.match(line)
        if opening is None:
            plain.append(line)
            continue
        yield from _plain(plain)
        plain = []
        body: list[str] = []
        for inner in lines:
            if inner.strip() == opening[1]:
                break
            body.append(inner)
        options = [] if opening[2] == "figure" else [entry for entry in body if re.match(r"^:[\w-]+:", entry)]
        yield Block(opening[2], opening[3].strip(), "\n".join(entry for entry in body if entry not in options))
    yield from _plain(plain)


def _plain(lines: list[str]) -> Iterator[Block]:
    if any(line.strip() for line in lines):
        yield Block("", "", "\n".join(lines))


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _authors(entry: Entry) -> str:
    names = [" ".join(person.last_names) for person in entry.persons["author"]]
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names)

"""Parameters as docstrings describe them, without the punctuation that would give their parts away."""

import hashlib
import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

from datasets import Dataset, DatasetDict

from course.corpora import docstrings

CARD = {
    "title": "Words of numpydoc's Parameters sections: names, types, defaults and descriptions",
    "source": "the corpus `docstrings`: the sections' layout says which word is what",
    "licence": docstrings.CARD["licence"],
    "language": "technical English",
    "size": "about 2,500 sections, 7,000 parameters",
    "note": "The layout is taken away: colons, commas and lines are gone, so that a word's part must be found from the "
    "words. Of a description its first sentence is kept. The splits are those of `docstrings`, by whole modules.",
}
TAGS = ("other", "name", "type", "default")
"""What a word can be: the label of a word is its place in this row."""

MOST_WORDS = 60
"""Of one row: a section goes on as long as another entry fits."""

DESCRIBED = 15
"""Words of a description that are kept."""

_SECTION = re.compile(r"^Parameters\n-{3,}\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^(\S[^\n]*?) : ([^\n]+)\n((?:(?:[ \t]+[^\n]*)?\n)*(?:[ \t]+[^\n]*)?)", re.MULTILINE)
_DEFAULT = re.compile(r"[,(]?\s*\bdefaults?(?: is| to|:|=)?\s+(.*?)\)?$", re.IGNORECASE)
_SPACE_OR_COMMA = re.compile(r"[\s,]+")


class Entry(NamedTuple):
    """One parameter, or several that share a line: the words of each part."""

    name: list[str]
    type: list[str]
    default: list[str]
    description: list[str]


def load() -> DatasetDict:
    """The splits: `words`, their `tags` as places in `TAGS`, and `entries`, the number of each word's parameter."""
    return DatasetDict(
        {
            split: Dataset.from_list([row for text in data["text"] if (row := labelled(entries_of(text)))["words"]])
            for split, data in docstrings.load().items()
        }
    )


def versions() -> dict[str, str]:
    """What the corpus is read from: library -> version, and what reads it."""
    source = inspect.getsource(docstrings).encode()
    return docstrings.versions() | {"docstrings": hashlib.sha256(source).hexdigest()}


def entries_of(text: str) -> Iterator[Entry]:
    """The parameters that a docstring describes in numpydoc's form."""
    section = _SECTION.search(text)
    for name, kind, description in _ENTRY.findall(section[1] + "\n" if section else ""):
        default = _DEFAULT.search(kind)
        if default:
            kind = kind[: default.start()]
        first = " ".join(description.split()).split(". ")[0]
        yield Entry(
            words(name), [word for word in words(kind) if word != "optional"], words(default[1]) if default else [],
            words(first)[:DESCRIBED],
        )  # fmt: skip


def words(text: str) -> list[str]:
    """The words of a piece of text, without marks of layout at their ends."""
    return [word for piece in _SPACE_OR_COMMA.split(text) if (word := piece.strip("`*:;.,()"))]


def labelled(entries: Iterator[Entry]) -> dict[str, list[str] | list[int]]:
    """The words of some parameters one after the other, with a tag and the number of the parameter for each."""
    found: list[str] = []
    tags: list[int] = []
    numbers: list[int] = []
    for number, entry in enumerate(entries):
        parts = ((entry.name, 1), (entry.type, 2), (entry.default, 3), (entry.description, 0))
        length = sum(len(part) for part, _ in parts)
        if len(found) + length > MOST_WORDS:
            break
        for part, tag in parts:
            found += part
            tags += [tag] * len(part)
        numbers += [number] * length
    return {"words": found, "tags": tags, "entries": numbers}

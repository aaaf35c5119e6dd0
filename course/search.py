"""`course search`: finds by meaning, in the course's pages or in what installed libraries say of their functions."""

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from course.chapters import CourseError, root
from course.passages import SOURCES, Passage, Source

if TYPE_CHECKING:  # torch takes a second to import, and `course search --help` needs none of it
    from torch import Tensor

    from course.sentences import Sentences


@dataclass(frozen=True)
class Found:
    """A passage that a search found.

    Args:
        cosine: of the angle between its vector and the query's.
        passage: what was found.
    """

    cosine: float
    passage: Passage


@dataclass(frozen=True)
class Index:
    """Passages and their vectors.

    Args:
        passages: N of them.
        vectors: a tensor (N, D), each row of length 1.
    """

    passages: list[Passage]
    vectors: "Tensor"

    def nearest(self, query: "Tensor", num: int) -> list[Found]:
        """The passages whose vectors point most nearly in the query's direction.

        Args:
            query: (D,)
            num: how many, if there are so many.
        """
        from solutions.pretrained import search

        cosines, places = search(query, self.vectors, min(num, len(self.passages)))
        return [Found(c, self.passages[i]) for c, i in zip(cosines.tolist(), places.tolist(), strict=True)]


def folder() -> Path:
    """Where indexes are kept: `COURSE_CACHE`, or a folder of the user's cache."""
    own = os.environ.get("COURSE_CACHE")
    return (
        Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "build-a-transformer"
    )


def index(name: str, embed: Callable[[Source, list[Passage]], "Tensor"]) -> Index:
    """The index from the last time, or made now and kept for the next time.

    None that is kept is ever out of date: its name follows from what it is made from. One that is damaged is made
    anew; where nothing can be written, nothing is kept.

    Args:
        name: one of `SOURCES`.
        embed: gives the vectors (N, D) of passages.
    """
    source = SOURCES[name]
    path = folder() / f"{name}-{source.key}.safetensors"
    kept = read(path)
    if kept is not None:
        return kept
    passages = source.passages()
    made = Index(passages, embed(source, passages))
    try:
        write(made, path)
    except OSError as error:
        click.echo(f"The index cannot be kept in {folder()}: {error.strerror or error}. It is made anew.", err=True)
    return made


def write(made: Index, path: Path) -> None:
    """Keep an index as one file: the vectors in half precision, and the passages as JSON.

    Raises:
        OSError: it could not be written.
    """
    from safetensors.torch import save

    from course.files import write_whole

    written = save({"vectors": made.vectors.half()}, {"passages": json.dumps([astuple(one) for one in made.passages])})
    write_whole(path, lambda place: place.write_bytes(written))


def read(path: Path) -> Index | None:
    """An index that was kept; None where there is none, or a damaged one."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            vectors = file.get_tensor("vectors").float()
            passages = [Passage(*one) for one in json.loads(file.metadata()["passages"])]
        if vectors.dim() != 2 or len(vectors) != len(passages):
            raise ValueError("as many vectors as passages are needed")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        click.echo(f"The index in {path} is damaged: it is made anew.", err=True)
        return None
    return Index(passages, vectors)


def first_sentence(text: str, width: int) -> str:
    """The first sentence of a text, cut to a width in characters."""
    sentence = re.split(r"(?<=[.?!:])\s", text, maxsplit=1)[0]
    return textwrap.shorten(sentence, width, placeholder=" ...")


@click.command()
@click.argument("text")
@click.option("--num", default=5, show_default=True, type=click.IntRange(min=1), help="How many passages to show.")
@click.option(
    "--in", "where", default="pages", show_default=True, type=click.Choice(list(SOURCES)),
    help="The course's pages, or the docstrings of Python, torch, numpy, matplotlib and pandas.",
)  # fmt: skip
def search(text: str, num: int, where: str) -> None:
    """Find what is nearest to TEXT in meaning, such as "why do the scores get smaller?"; no word need be the same.

    The first search of its kind reads everything, which takes seconds for pages and minutes for docstrings.
    """
    if not re.search(r"\w", text):
        raise CourseError('The text to search for is empty. Ask as in `course search "what is a mask?"`.')
    from course import sentences

    model = sentences.load()
    found_in = index(where, _Embedder(model))
    if not found_in.passages:
        raise CourseError(
            f"There is nothing to search: {SOURCES[where].says} are not in {root()}. Nothing was changed."
        )
    nearest = found_in.nearest(model.embed([text])[0], num)
    width = max(shutil.get_terminal_size().columns, 40)
    for rank, found in enumerate(nearest, 1):
        click.echo(f"{rank:>2}  {found.cosine:.2f}  {found.passage.name}")
        for line in (first_sentence(found.passage.text, width - 10), found.passage.place):
            click.echo(f"{'':10}{line}")


class _Embedder:
    """Reads passages, and says how far it is."""

    def __init__(self, model: "Sentences") -> None:
        self.model = model

    def __call__(self, source: Source, passages: list[Passage]) -> "Tensor":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        click.echo(f"Reading {source.says}, {len(passages):,} passages, once; later searches find them read.", err=True)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("about"), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
            task = bar.add_task("", total=len(passages))
            return self.model.embed([one.words for one in passages], source.longest, lambda n: bar.advance(task, n))

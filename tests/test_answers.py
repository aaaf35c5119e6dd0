"""A written answer is found wherever the student wrote it, or a person is shown all that may be one."""

from typing import Any

import nbformat
import pytest

from autograder.normalise import Normalised
from autograder.standing import answered
from tests.handed_in import ANSWER, SOFTMAX, Class, Notebook, at, code, index

OTHER = "attention-choose_mask-answer"
TEXT = "Because the *variance* of the scores grows with $d_k$."
WHY, CHOOSE = "attention.why_scale", "attention.choose_mask"


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Class:
    return Class(tmp_path_factory.mktemp("group"))


def note(source: str = TEXT, kind: str = "markdown", **fields: Any) -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {}, "source": source} | fields


def answered_elsewhere(group: Class) -> Notebook:
    """A notebook in which the other question is answered."""
    notebook = group.solved()
    at(notebook, OTHER)["source"] = "The causal one, I think."
    return notebook


def put(notebook: Notebook, cell: dict[str, Any], where: str) -> None:
    """Put a cell where an answer may stand, or where it may not."""
    place = index(notebook, ANSWER)
    notebook["cells"].insert(
        {"above": place, "below": place + 1, "last": len(notebook["cells"]), "first": 0}[where], cell
    )


CELLS = {
    "text": note(),
    "raw": note(kind="raw"),
    "heading": note("# " + TEXT, "heading"),
    "words in a code cell": code(TEXT),
    "comments alone": code("# Because the variance of the scores\n# grows with d_k.", id="mine"),
    "a string": code(f'"""{TEXT}"""'),
    "printed": code(f"print({TEXT!r})"),
    "named and printed": code(f"answer = {TEXT!r}\nprint(answer)"),
    "named, stripped and printed": code(f"answer = {TEXT!r}\nprint(answer.strip(), end='')"),
    "formatted": code(f"answer = {TEXT!r}\nprint(f'Mine: {{answer}}')"),
    "a named string": code(f"answer = {TEXT!r}"),
    "comments beside code": code("# Because the variance of the scores grows with d_k.\nx = torch.randn(3)"),
}


class TestBesideItsCell:
    @pytest.mark.parametrize("where", ["above", "below"])
    @pytest.mark.parametrize("kept", ["kept", "deleted"])
    @pytest.mark.parametrize("name", CELLS)
    def test_is_taken(self, group: Class, name: str, kept: str, where: str) -> None:
        notebook = answered_elsewhere(group)
        put(notebook, CELLS[name], where)
        if kept == "deleted":
            notebook["cells"].remove(at(notebook, ANSWER))
        result = group.rebuilt(notebook)
        assert "variance" in result.written[WHY]
        assert result.written[CHOOSE] == "The causal one, I think."
        [said] = result.repairs
        assert said.startswith(f"The answer to `{WHY}` was taken from ")
        assert result.notes == []

    @pytest.mark.parametrize("lost", ["metadata", "id", "both"])
    def test_a_cell_that_lost_its_marks(self, group: Class, lost: str) -> None:
        notebook = answered_elsewhere(group)
        cell = at(notebook, ANSWER)
        cell["source"] = TEXT
        for name in ("metadata", "id") if lost == "both" else (lost,):
            cell.pop(name)
        assert group.rebuilt(notebook).written[WHY] == TEXT

    def test_the_words_are_not_run_as_code(self, group: Class) -> None:
        notebook = answered_elsewhere(group)
        put(notebook, code(TEXT), "below")
        result = group.rebuilt(notebook)
        assert result.notebook is not None
        assert not [cell for cell in result.notebook.cells if cell.id.startswith("own-")]

    @pytest.mark.parametrize("mark", ["\n\n", "\n"])
    def test_written_into_the_question(self, group: Class, mark: str) -> None:
        notebook = answered_elsewhere(group)
        asked = notebook["cells"][index(notebook, ANSWER) - 1]
        asked["source"] += mark + TEXT
        result = group.rebuilt(notebook)
        assert result.written[WHY] == TEXT
        assert result.repairs == [f"The answer to `{WHY}` was taken from text beside its own cell."]

    def test_what_goes_on_below_belongs_to_it(self, group: Class) -> None:
        notebook = answered_elsewhere(group)
        at(notebook, ANSWER)["source"] = "See below."
        put(notebook, note(), "below")
        result = group.rebuilt(notebook)
        assert result.written[WHY] == f"See below.\n\n{TEXT}"
        assert result.repairs == [f"What stands below the answer to `{WHY}` was read as part of it."]


class TestElsewhere:
    @pytest.mark.parametrize("where", ["first", "last"])
    @pytest.mark.parametrize("name", [name for name in CELLS if name != "comments beside code"])
    def test_is_shown_to_a_person(self, group: Class, name: str, where: str) -> None:
        notebook = answered_elsewhere(group)
        put(notebook, CELLS[name], where)
        result = group.rebuilt(notebook)
        assert "variance" in result.written[WHY]
        assert answered(result.written[WHY])
        assert [(flag.kind, flag.cell) for flag in result.flags] == [("answer", ANSWER)]
        assert any("shown to the person who grades it" in said for said in result.repairs)

    def test_in_a_text_cell_of_the_release_far_away(self, group: Class) -> None:
        notebook = answered_elsewhere(group)
        notebook["cells"][0]["source"] += "\n\n" + TEXT
        assert TEXT in group.rebuilt(notebook).written[WHY]

    def test_in_the_notebooks_metadata(self, group: Class) -> None:
        notebook = answered_elsewhere(group)
        notebook["metadata"]["answers"] = {"why_scale": [TEXT]}
        result = group.rebuilt(notebook)
        assert TEXT in result.written[WHY]
        assert [flag.kind for flag in result.flags] == ["answer"]

    def test_every_open_question_shows_it(self, group: Class) -> None:
        notebook = group.solved()
        put(notebook, note(), "last")
        result = group.rebuilt(notebook)
        assert all(TEXT in text for text in result.written.values())

    def test_where_all_is_answered_it_is_kept_as_a_note(self, group: Class) -> None:
        notebook = answered_elsewhere(group)
        at(notebook, ANSWER)["source"] = TEXT
        put(notebook, note("What I tried before I understood it."), "last")
        result = group.rebuilt(notebook)
        assert result.notes == ["What I tried before I understood it."]
        assert (result.written[WHY], result.repairs, result.flags) == (TEXT, [], [])

    def test_words_in_the_place_of_code_are_kept_too(self, group: Class) -> None:
        notebook = group.solved()
        at(notebook, SOFTMAX).update(cell_type="markdown", source="I could not do this one, sorry.")
        assert group.rebuilt(notebook).notes == ["I could not do this one, sorry."]


class TestNoAnswer:
    def test_the_released_text_is_nobodys(self, group: Class) -> None:
        notebook = group.solved()
        asked = notebook["cells"][index(notebook, ANSWER) - 1]
        notebook["cells"].append(asked | {"id": "copy"})
        at(notebook, OTHER).pop("metadata")
        notebook["cells"].append({"cell_type": "markdown", "source": "YOUR ANSWER HERE"})
        assert set(group.rebuilt(notebook).written.values()) == {""}

    @pytest.mark.parametrize(
        "cell", [code("x = torch.randn(3)  # try it"), code("def f(:\n    x = 1"), code("# x = 3"), note("## Notes")]
    )
    def test_code_and_headings_far_away_are_none(self, group: Class, cell: dict[str, Any]) -> None:
        notebook = group.solved()
        put(notebook, cell, "last")
        result = group.rebuilt(notebook)
        assert set(result.written.values()) == {""}
        assert (result.repairs, result.flags) == ([], [])


PICTURE = {"attachments": {"a.png": {"image/png": "AA=="}}}


class TestPictures:
    @pytest.mark.parametrize("source", ["", "YOUR ANSWER HERE", "![it](attachment:a.png)"])
    def test_in_its_cell_wait_for_a_person(self, group: Class, source: str) -> None:
        notebook = answered_elsewhere(group)
        at(notebook, ANSWER).update(PICTURE, source=source)
        result = group.rebuilt(notebook)
        assert answered(result.written[WHY])
        assert [(flag.kind, flag.cell) for flag in result.flags] == [("answer", ANSWER)]

    @pytest.mark.parametrize("where", ["above", "below", "last"])
    def test_in_another_cell_wait_too(self, group: Class, where: str) -> None:
        notebook = answered_elsewhere(group)
        put(notebook, note("", **PICTURE), where)
        result = group.rebuilt(notebook)
        assert answered(result.written[WHY])
        assert [flag.kind for flag in result.flags] == ["answer"]


def test_an_exercise_that_is_solved_in_a_text_cell_is_graded(group: Class) -> None:
    notebook = group.solved()
    solution = at(notebook, SOFTMAX)["source"]
    at(notebook, SOFTMAX)["source"] = at(group.blank(), SOFTMAX)["source"]
    notebook["cells"].append(note(f"```python\n{solution}\n```"))
    result = group.rebuilt(notebook)
    assert result.sources["attention.softmax"] == solution
    assert result.repairs == ["`softmax` was found in a cell that is not its own and graded from there."]
    assert set(result.written.values()) == {""}


def rebuilt_again(group: Class, result: Normalised) -> Normalised:
    assert result.notebook is not None
    return group.rebuilt(nbformat.writes(group.student_version(result.notebook)).encode())


@pytest.mark.parametrize("where", ["first", "above", "below", "last"])
@pytest.mark.parametrize("name", CELLS)
def test_once_rebuilt_it_stays(group: Class, name: str, where: str) -> None:
    notebook = group.blank()
    put(notebook, CELLS[name], where)
    result = group.rebuilt(notebook)
    second = rebuilt_again(group, result)
    assert (second.written, second.notebook, second.repairs) == (result.written, result.notebook, [])

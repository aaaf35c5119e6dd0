"""A kernel executes a cell at a time, and whatever happens in a cell is that cell's ending."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell

from autograder.jail import kernel_manager
from autograder.kernel import Ending, Kernel, _Clock, _usual

pytestmark = pytest.mark.slow


class Lab:
    """A kernel without a jail, and a loop in which to talk to it."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        library = folder / "library"
        library.mkdir()
        self.kernel = Kernel(lambda place, env: kernel_manager(library, place, True, env), folder, {})
        self.loop.run_until_complete(self.kernel.start())

    def run(self, source: str, seconds: float = 20.0) -> tuple[Ending, NotebookNode]:
        """How a cell ends, and the cell; after an ending, a new kernel is there."""
        cell = new_code_cell(source)
        ending = self.loop.run_until_complete(self.kernel.execute(cell, seconds))
        if ending:
            self.loop.run_until_complete(self.kernel.start())
        return ending, cell

    def close(self) -> None:
        self.loop.run_until_complete(self.kernel.stop())
        self.loop.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="k") as name:
        lab = Lab(Path(name))
        yield lab
        lab.close()


class TestEndings:
    def test_time_need_not_be_a_whole_number(self, lab: Lab) -> None:
        assert lab.run("print(1)", 36.4)[0] == ""

    @pytest.mark.parametrize("call", ["exit()", "quit()", "get_ipython().ask_exit()", "import os; os._exit(0)"])
    def test_a_cell_that_tells_the_kernel_to_go_is_the_one_that_pays(self, lab: Lab, call: str) -> None:
        assert lab.run(call)[0] == "crash"
        assert lab.run("print(1)")[0] == ""

    def test_nobody_answers_a_question(self, lab: Lab) -> None:
        started = time.monotonic()
        ending, cell = lab.run("input('name')")
        assert ending == ""
        assert [output.ename for output in cell.outputs] == ["StdinNotImplementedError"]
        assert time.monotonic() - started < 10

    def test_an_endless_cell(self, lab: Lab) -> None:
        assert lab.run("import time; time.sleep(100)", 0.5)[0] == "time"

    @pytest.mark.parametrize(
        "flood",
        [
            "print('x' * 2**23)",
            "from IPython.display import display\nfor _ in range(10_000): display(1)",
            "from IPython.display import display\ndisplay({'application/json': [[]] * 300_000}, raw=True)",
        ],
        ids=["long", "many", "crowded"],
    )
    def test_a_flood(self, lab: Lab, flood: str) -> None:
        assert lab.run(flood)[0] == "flood"

    def test_an_output_may_be_updated_by_a_later_cell(self, lab: Lab) -> None:
        assert lab.run("h = display('a', display_id=True)\nprint(2)")[0] == ""
        ending, cell = lab.run("h.update('b')")
        assert (ending, cell.outputs) == ("", [])
        assert lab.run("h = display('a', display_id=True); h.update('b')")[1].outputs[0].data["text/plain"] == "'b'"


class TestClock:
    @pytest.mark.parametrize(("used", "over"), [(None, True), (0.0, True), (0.01, True), (0.15, False), (0.3, True)])
    def test_who_computes_and_is_kept_waiting_gets_more(self, used: float | None, over: bool) -> None:
        """After 0.3 of 0.2 seconds: one that cannot be measured, that sleeps (twice), waited, that had its time."""
        readings = iter([None if used is None else 0.0, used])
        clock = _Clock(0.2, lambda: next(readings))
        assert not clock.is_over()
        time.sleep(0.3)
        assert clock.is_over() == over

    def test_but_not_for_ever(self) -> None:
        readings = iter([0.0, 0.05])
        clock = _Clock(0.1, lambda: next(readings))
        time.sleep(0.35)
        assert clock.is_over()


def test_what_no_kernel_says_is_left_out() -> None:
    parent = {"msg_id": "1"}
    for kind in ("stream", "display_data", "execute_result", "error", "update_display_data", "status", "comm_msg", "x"):
        for content in ({}, [], None, {"data": 3}, {"name": [], "text": 1}, {"ename": None}, {"execution_state": {}}):
            assert _usual({"msg_type": kind, "content": content, "parent_header": parent}) is None

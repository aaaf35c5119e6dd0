"""Reading a student's folder: whatever lies there, the outcome is cells, or a refusal that says why."""

import json
import os
import socket
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbgrader.utils import parse_utc

from autograder.cells import MAX_VALUES, NotANotebookError, read_cells
from autograder.normalise import Submission, read
from autograder.submission import MAX_BYTES, written
from course.students import made_of
from tests.handed_in import CHAPTER, code

NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [code("x = 1", id="one")]}
RIGHT = f"{CHAPTER}.ipynb"
MARKED = NOTEBOOK | {"cells": [code("x", metadata={"nbgrader": {"grade_id": "attention-softmax"}})]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "submitted" / "ada" / CHAPTER
    folder.mkdir(parents=True)
    return folder


def put(folder: Path, name: str, content: Any = NOTEBOOK) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def kinds(submission: Submission) -> list[str]:
    return [flag.kind for flag in submission.flags]


class TestChoosing:
    def test_the_right_name(self, folder: Path) -> None:
        put(folder, RIGHT)
        put(folder, "other.ipynb")
        got = read(folder, CHAPTER)
        assert (got.student, got.name, got.refused, got.repairs, got.flags) == ("ada", RIGHT, "", [], [])
        assert [cell.source for cell in got.cells] == ["x = 1"]

    @pytest.mark.parametrize(
        "name", ["attention.ipynb", f"{CHAPTER} (1).ipynb", f"{CHAPTER.upper()}.IPYNB", f"deep/{CHAPTER}/{RIGHT}"]
    )
    def test_the_only_notebook(self, folder: Path, name: str) -> None:
        put(folder, name)
        got = read(folder, CHAPTER)
        assert (got.name, got.refused) == (name, "")
        assert got.repairs == [f"`{name}` was graded. It should be called {RIGHT}."]

    def test_of_several_the_one_with_nearly_the_right_name(self, folder: Path) -> None:
        put(folder, "01_Attention.ipynb")
        put(folder, "notes.ipynb")
        assert read(folder, CHAPTER).name == "01_Attention.ipynb"

    def test_of_several_the_one_with_the_chapters_cells(self, folder: Path) -> None:
        put(folder, "a.ipynb")
        put(folder, "b.ipynb", MARKED)
        put(folder, "c.ipynb", b"broken")
        got = read(folder, CHAPTER)
        assert got.name == "b.ipynb"
        assert got.repairs == [f"`b.ipynb` was graded. It should be called {RIGHT}."]

    def test_several_that_could_be_meant_are_listed(self, folder: Path) -> None:
        put(folder, "a.ipynb", MARKED)
        put(folder, "b.ipynb", MARKED)
        assert read(folder, CHAPTER).refused == (
            f"The folder holds several notebooks: a.ipynb, b.ipynb. Hand in one, called {RIGHT}."
        )

    def test_jupyters_and_macos_copies_are_nobodys_work(self, folder: Path) -> None:
        put(folder, f".ipynb_checkpoints/{RIGHT}")
        put(folder, f"__MACOSX/._{RIGHT}")
        put(folder, f"._{RIGHT}")
        assert read(folder, CHAPTER).refused.startswith("There is no notebook in the folder; it holds ")
        put(folder, RIGHT)
        assert read(folder, CHAPTER).repairs == []

    def test_a_crowd_of_files(self, folder: Path) -> None:
        for number in range(1100):
            (folder / f"{number}.txt").touch()
        put(folder, RIGHT)
        got = read(folder, CHAPTER)
        assert (got.name, kinds(got)) == (RIGHT, ["size"])

    def test_no_folder(self, folder: Path) -> None:
        assert read(folder.parent / "02_multi_head", "02_multi_head").refused.startswith(
            "The submission cannot be read"
        )


class TestOtherFiles:
    @pytest.mark.parametrize("name", ["torch.py", "sitecustomize.py", "autograder/__init__.py", "ipython_config.py",
                                      "json.py", ".ipython/profile_default/startup/a.py"])  # fmt: skip
    def test_names_of_modules_and_settings_are_flagged(self, folder: Path, name: str) -> None:
        put(folder, RIGHT)
        put(folder, name, b"raise SystemExit")
        got = read(folder, CHAPTER)
        assert kinds(got) == ["shadow"]
        assert name.split("/")[0] in got.flags[0].message

    def test_honest_files_are_not(self, folder: Path) -> None:
        put(folder, RIGHT)
        for name in ("helpers.py", "attention_flow.svg", "data/words.txt", "notes.md", "torch.txt", "torch/notes.txt"):
            put(folder, name, b"")
        assert read(folder, CHAPTER).flags == []


def link_to_outside(path: Path) -> None:
    outside = path.parents[3] / "outside.ipynb"
    outside.write_text(json.dumps(NOTEBOOK))
    path.symlink_to(outside)


def open_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # the whole path can be longer than a socket's name may be
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


class TestSafety:
    @pytest.mark.parametrize(
        ("make", "what"),
        [(link_to_outside, "a link"), (os.mkfifo, "not a regular file"), (open_socket, "not a regular file"),
         (Path.mkdir, "not a regular file")],
    )  # fmt: skip
    def test_only_regular_files_are_opened(self, folder: Path, make: Callable[[Path], None], what: str) -> None:
        make(folder / RIGHT)
        got = read(folder, CHAPTER)
        assert got.refused == f"`{RIGHT}` is {what}. Hand in the file itself."
        assert kinds(got) == (["symlink"] if what == "a link" else [])

    @pytest.mark.parametrize("level", ["student", "chapter"])
    def test_a_linked_folder_is_refused(self, folder: Path, level: str) -> None:
        real = folder if level == "chapter" else folder.parent
        put(folder, RIGHT)
        moved = real.rename(real.with_name("elsewhere"))
        real.symlink_to(moved)
        assert read(folder, CHAPTER).refused == f"`{real.name}` is a link. Hand in a folder with the notebook itself."

    def test_a_linked_folder_within_is_not_entered(self, folder: Path) -> None:
        outside = folder.parents[2] / "outside"
        put(outside, RIGHT)
        (folder / "inner").symlink_to(outside)
        got = read(folder, CHAPTER)
        assert got.refused == f"There is no notebook in the folder; it holds inner. Hand in {RIGHT}."
        assert kinds(got) == ["symlink"]

    def test_the_instructors_own_link_is_followed(self, folder: Path) -> None:
        put(folder, RIGHT)
        link = folder.parents[2] / "link"
        link.symlink_to(folder.parents[1])
        assert read(link / "ada" / CHAPTER, CHAPTER).refused == ""

    def test_a_hard_link_is_flagged(self, folder: Path) -> None:
        os.link(put(folder.parents[2], "outside.ipynb"), folder / RIGHT)
        got = read(folder, CHAPTER)
        assert (got.refused, kinds(got)) == ("", ["hardlink"])

    def test_an_unreadable_notebook(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(folder, RIGHT)
        real = os.open

        def deny(path: Any, *args: Any, **kwargs: Any) -> int:
            if path == RIGHT:
                raise PermissionError(13, "Permission denied")
            return real(path, *args, **kwargs)

        monkeypatch.setattr(os, "open", deny)
        assert read(folder, CHAPTER).refused == "The submission cannot be read: Permission denied."

    def test_too_large(self, folder: Path) -> None:
        with put(folder, RIGHT).open("r+b") as file:
            file.truncate(MAX_BYTES + 2**20)
        assert read(folder, CHAPTER).refused == (
            f"`{RIGHT}` has 21.0 MB, and at most 20 MB are read. Clear its outputs and hand it in again."
        )

    def test_no_handle_stays_open(self, folder: Path) -> None:
        put(folder, RIGHT)
        put(folder, "timestamp.txt", b"never")
        os.mkfifo(folder / "pipe.ipynb")
        read(folder, CHAPTER)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for chapter in (CHAPTER, "02_multi_head"):
            read(folder, chapter)
            read(folder.parent / "nowhere", chapter)
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_nothing_is_changed(self, folder: Path) -> None:
        put(folder, RIGHT)
        put(folder, "torch.py", b"1/0")
        before = {path: path.stat().st_mtime_ns for path in folder.parents[1].rglob("*")}
        read(folder, CHAPTER)
        assert {path: path.stat().st_mtime_ns for path in folder.parents[1].rglob("*")} == before

    def test_odd_names_do_not_mix(self) -> None:
        names = ["ada", "Ada", "ада", "a da", "a-da", ".ada", "a/../b", "x" * 255, "x" * 254 + "y", "\udcff", ""]
        safe = [made_of(name) for name in names]
        assert len(set(safe)) == len(names)
        assert all(name.replace("-", "").isalnum() and name.isascii() and len(name) < 60 for name in safe)


class TestClock:
    @pytest.mark.parametrize(
        "text", ["2024-03-01 12:00:00.5 UTC", "2024-03-01 12:00:00", "2024-03-01 13:00 Europe/Paris"]
    )
    def test_a_time_is_read_as_nbgrader_reads_it(self, folder: Path, text: str) -> None:
        put(folder, RIGHT)
        put(folder, "timestamp.txt", text.encode())
        got = read(folder, CHAPTER)
        assert got.flags == []
        assert got.handed_in is not None
        assert (got.handed_in.hour, got.handed_in.minute) == (12, 0)

    @pytest.mark.parametrize(
        "text", ["", "soon", "9999-12-31 23:59:59 UTC", "1970-01-01 00:00:00 UTC", "2024-03-01 12:00 /etc/passwd",
                 "2024-03-01 12:00 ../../x", "\xff", "1" * 99, "1" * 10_000, "2024-13-45 99:99"],
    )  # fmt: skip
    def test_an_absurd_time_is_flagged(self, folder: Path, text: str) -> None:
        put(folder, RIGHT)
        put(folder, "timestamp.txt", text.encode("latin-1"))
        got = read(folder, CHAPTER)
        assert (got.refused, kinds(got), got.handed_in) == ("", ["clock"], None)

    @pytest.mark.parametrize(
        ("text", "hour"),
        [("2024-07-01 12:00:00 UTC", 12), ("2024-07-01 12:00:00 +0200", 10), ("2024-07-01 12:00:00-04:00", 16),
         ("2024-07-01T12:00:00Z", 12), ("2024-07-01 12:00:00 America/New_York", 16), ("2024-07-01 12:00:00 CET", 10)],
    )  # fmt: skip
    def test_a_zone_is_taken_at_its_word(self, folder: Path, text: str, hour: int) -> None:
        """nbgrader reads +0200 as 200 seconds."""
        put(folder, RIGHT)
        put(folder, "timestamp.txt", text.encode())
        got = read(folder, CHAPTER)
        assert got.flags == [] and got.handed_in == datetime(2024, 7, 1, hour)

    @pytest.mark.parametrize(
        "text", ["2024-07-01 12:00:00 EDT", "2024-07-01 12:00:00 CEST", "2024-07-01 12:00:00 PM", "2024-07-01 12:00 X",
                 "2024-07-01", "12:00", "July", "2024-07-01 12:00:00 7200", "2024-07-01 12:00:00+02:00 UTC"],
    )  # fmt: skip
    def test_what_could_mean_two_times_is_flagged_and_not_guessed(self, folder: Path, text: str) -> None:
        put(folder, RIGHT)
        put(folder, "timestamp.txt", text.encode())
        got = read(folder, CHAPTER)
        assert (kinds(got), got.handed_in) == (["clock"], None)
        assert "No time of submission was recorded" in got.flags[0].message

    def test_nbgrader_reads_back_what_was_decided(self, folder: Path) -> None:
        put(folder, RIGHT)
        put(folder, "timestamp.txt", b"2024-03-01 12:00:00.000001 America/New_York")
        got = read(folder, CHAPTER)
        assert parse_utc(written(got.handed_in)) == got.handed_in == datetime(2024, 3, 1, 17, 0, 0, 1)
        assert written(None) == ""

    def test_older_than_the_release(self, folder: Path) -> None:
        put(folder, RIGHT)
        put(folder, "timestamp.txt", b"2024-03-01 12:00:00 UTC")
        assert kinds(read(folder, CHAPTER, released=datetime(2024, 3, 2))) == ["clock"]
        assert kinds(read(folder, CHAPTER, released=datetime(2024, 2, 28))) == []

    def test_a_link_or_a_pipe_is_not_opened(self, folder: Path) -> None:
        put(folder, RIGHT)
        os.mkfifo(folder / "timestamp.txt")
        assert kinds(read(folder, CHAPTER)) == ["clock"]
        (folder / "timestamp.txt").unlink()
        (folder / "timestamp.txt").symlink_to(put(folder.parents[2], "outside", b"2024-03-01 12:00:00"))
        assert kinds(read(folder, CHAPTER)) == ["symlink", "clock"]


def sources(content: Any) -> list[str]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return [cell.source for cell in read_cells(data)[0]]


def refusal(content: Any) -> str:
    with pytest.raises(NotANotebookError) as caught:
        sources(content)
    return str(caught.value)


class TestCells:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
    def test_encodings(self, encoding: str) -> None:
        text = json.dumps(NOTEBOOK | {"cells": [code("π = 3  # ≈")]}, ensure_ascii=False)
        cells, notes = read_cells(text.encode(encoding))
        assert cells[0].source == "π = 3  # ≈"
        assert len(notes) == ("8" not in encoding)

    def test_bytes_that_are_not_text(self) -> None:
        cells, notes = read_cells(json.dumps(NOTEBOOK).replace("x = 1", "x = '?'").encode().replace(b"?", b"\xff"))
        assert cells[0].source == "x = '\ufffd'"
        assert notes == ["The file contains bytes that are not text. Each was replaced by \ufffd."]

    def test_half_a_character_and_nul(self) -> None:
        assert sources(NOTEBOOK | {"cells": [code("a\ud800b\0c")]}) == ["a\ufffdb\ufffdc"]
        assert sources(NOTEBOOK | {"cells": [code("\ud83d\ude00")]}) == ["😀"]

    def test_line_ends(self) -> None:
        assert sources(NOTEBOOK | {"cells": [code("a\r\n\tb\rc\n")]}) == ["a\n\tb\nc\n"]

    @pytest.mark.parametrize(
        ("content", "words"),
        [(b"", "damaged or breaks off"), (b"[1, 2]", "not a notebook"), (b"null", "not a notebook"),
         (json.dumps(NOTEBOOK).encode()[:60], "damaged or breaks off, at line 1"),
         (b"[" * 100_000, "within each other too deep"), (b'{"a": ' * 100_000, "within each other too deep"),
         (b'{"nbformat": ' + b"9" * 5000 + b"}", "thousands of digits"),
         ({"cells": {"0": {}}}, "no list of cells"), ({"nbformat": 4}, "no list of cells"),
         (NOTEBOOK | {"cells": []}, "without cells"), (NOTEBOOK | {"cells": [1, None]}, "without cells"),
         (b"PK\x03\x04" + bytes(range(256)), "damaged or breaks off")],
    )  # fmt: skip
    def test_what_is_no_notebook_is_refused_with_a_reason(self, content: Any, words: str) -> None:
        assert words in refusal(content)

    def test_numbers_that_json_does_not_know_do_no_harm(self) -> None:
        text = json.dumps(NOTEBOOK)[:-1] + ', "a": NaN, "b": -Infinity, "c": 1e999}'
        assert sources(text.encode()) == ["x = 1"]

    def test_of_equal_keys_the_last_counts_as_in_jupyter(self) -> None:
        assert sources(json.dumps(NOTEBOOK).replace('"source": ', '"source": "first", "source": ').encode()) == [
            "x = 1"
        ]

    @pytest.mark.parametrize(
        ("cell", "source"),
        [({"source": ["a\n", "b"]}, "a\nb"), ({"source": ["a", 1, None]}, "a"), ({"source": 7}, ""), ({}, ""),
         ({"source": None, "metadata": []}, ""), ({"source": "a", "metadata": {"nbgrader": [], "tags": 3}}, "a"),
         ({"source": "a", "metadata": {"tags": [[], {}], "jupyter": 1}, "id": {}, "cell_type": []}, "a")],
    )  # fmt: skip
    def test_wrong_types_anywhere(self, cell: Any, source: str) -> None:
        assert sources(NOTEBOOK | {"cells": [cell]}) == [source]

    def test_version_3(self) -> None:
        cell = {"cell_type": "code", "input": ["x = ", "1"], "metadata": {}}
        cells, notes = read_cells(json.dumps({"nbformat": 3, "worksheets": [{"cells": [cell]}]}).encode())
        assert [(cell.kind, cell.source) for cell in cells] == [("code", "x = 1")]
        assert notes == ["The file is not in version 4 of the notebook format. What could be read of it was graded."]

    @pytest.mark.parametrize("version", [5, None, "4", float("nan")])
    def test_an_unknown_version_is_read_as_far_as_possible(self, version: Any) -> None:
        cells, notes = read_cells(json.dumps(NOTEBOOK | {"nbformat": version}).encode())
        assert (cells[0].source, len(notes)) == ("x = 1", 1)

    def test_a_bomb_of_values_takes_neither_time_nor_memory(self) -> None:
        bombs = [b"[" + b"[]," * (2 * 2**20) + b"]", b'{"a":[' + b'"ab",' * (2 * 2**20), b'"' + b'\\"' * (4 * 2**20)]
        for bomb in bombs:
            tracemalloc.start()
            begun = time.process_time()
            words = refusal(bomb)
            taken, peak = time.process_time() - begun, tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert f"more than {MAX_VALUES:,} values" in words or "breaks off" in words
            assert taken < 20
            assert peak < 8 * MAX_BYTES

    @settings(deadline=None)
    @given(st.binary(max_size=200) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
            st.sampled_from(["cells", "worksheets", "source", "metadata", "nbgrader", "id", "tags", "nbformat"]),
            inner, max_size=5),
        max_leaves=30).map(lambda value: json.dumps(value).encode()))  # fmt: skip
    def test_any_bytes_give_cells_or_a_reason(self, data: bytes) -> None:
        try:
            cells, _ = read_cells(data)
        except NotANotebookError as error:
            assert str(error)
        else:
            assert cells
            for cell in cells:
                cell.source.encode()


@pytest.fixture(autouse=True)
def _no_code_of_the_submission_is_imported(folder: Path) -> Iterator[None]:
    yield
    assert not [module for module in sys.modules.values() if str(folder) in str(getattr(module, "__file__", ""))]

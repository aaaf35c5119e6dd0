"""A user's own texts: read piece by piece, split without loss, and refused with a reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from course.chapters import CourseError
from course.corpora import own


def written(folder: Path, content: bytes, name: str = "text.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("most", "expected"), [(1000, 3), (2, 2)])
def test_every_document_is_in_one_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, expected: int
) -> None:
    monkeypatch.setattr(own, "MOST_HELD_OUT", most)
    documents = [f"document {number}\nwith two lines" for number in range(250)]
    path = written(tmp_path, "\n\n".join(documents).encode())
    splits = own.load([path])
    train, held_out = ([row["text"].strip() for row in splits[name]] for name in ("train", "validation"))
    assert sorted(train + held_out) == sorted(documents)
    assert len(held_out) == expected


def test_several_files_are_one_corpus(tmp_path: Path) -> None:
    paths = [written(tmp_path, text, f"{place}.txt") for place, text in enumerate((b"one\n\ntwo", b"three"))]
    splits = own.load(paths)
    assert [[row["text"].strip() for row in splits[name]] for name in splits] == [["one", "three"], ["two"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "fewer than two documents"),
        (b"\n\n \n\n", "fewer than two documents"),
        (b"only one\nof two lines\n", "fewer than two documents"),
        (b"good\n\nbad \xff\xfe here", "not in UTF-8"),
        (b"cut off \xe2\x82", "not in UTF-8"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(CourseError, match=said) as error:
        own.load([written(tmp_path, content)])
    assert "text.txt" in str(error.value)
    assert "Nothing was changed" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"There is no file .*nowhere\.txt"):
        own.load([tmp_path / "nowhere.txt"])


@pytest.mark.slow
def test_a_model_learns_from_them_and_draws_its_curve(tmp_path: Path) -> None:
    path = written(tmp_path, "\n\n".join(["the cat sat on the mat"] * 300).encode())
    command = [sys.executable, "-m", "course", "train", "docstrings-gpt", "--minutes", "0.02", "--text", str(path)]
    done = subprocess.run([*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert list((tmp_path / "out" / "logs").glob("events.*"))


def test_pairs_are_not_learned_from_texts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "course", "train", "dates", "--text", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--text is for language models" in done.stderr

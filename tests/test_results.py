"""Measurements that pages read, and what is said where they are missing."""

import json
from pathlib import Path

import pytest

from course.chapters import CourseError
from course.results import measured


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COURSE_ROOT", str(tmp_path))
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    return folder


class TestMeasured:
    def test_gives_the_rows_of_a_benchmark(self, results: Path) -> None:
        rows = [{"case": "one", "mean": 0.25, "sd": None}]
        (results / "speed.json").write_text(json.dumps({"name": "speed", "rows": rows}), encoding="utf-8")
        assert measured("speed") == rows

    def test_one_that_was_not_run_says_how(self, results: Path) -> None:
        with pytest.raises(CourseError, match=r"no result of the benchmark 'speed'.*python -m benchmarks\.speed"):
            measured("speed")

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "speed"}'])
    def test_a_damaged_one_says_so(self, results: Path, text: str) -> None:
        (results / "speed.json").write_text(text, encoding="utf-8")
        with pytest.raises(CourseError, match=r"is no result of a benchmark.*python -m benchmarks\.speed"):
            measured("speed")

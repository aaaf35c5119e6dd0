"""Measurements that take longer than a page should: made by the programs in `benchmarks/`, read by the pages."""

import json
from typing import Any

from course.chapters import CourseError, root


def measured(name: str) -> list[dict[str, Any]]:
    """The rows of a benchmark's result.

    Args:
        name: the benchmark's, such as "pretraining".

    Raises:
        CourseError: it has not been run, or its file cannot be read.
    """
    path = root() / "benchmarks" / "results" / f"{name}.json"
    how = f"Make it with `python -m benchmarks.{name}`."
    if not path.exists():
        raise CourseError(f"There is no result of the benchmark {name!r} in {path.parent}. {how}")
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise CourseError(f"{path} is no result of a benchmark: {error!r}. {how}") from error
    return rows

"""Measurements, one JSON file a benchmark; the book's page of benchmarks shows them."""

import json
import sys
from pathlib import Path
from typing import Any


def path_of(name: str) -> Path:
    """Where a benchmark's figures are."""
    return Path(__file__).parent / f"{name}.json"


def write(
    name: str, *, what: str, command: str, machine: str, versions: dict[str, str], rows: list[dict[str, Any]]
) -> None:
    """Record a benchmark's figures, replacing the last ones.

    Args:
        name: the file's name, without its ending.
        what: what was measured, in a sentence.
        command: what makes the figures anew.
        machine: cores, system and processor type.
        versions: package -> version of what was measured.
        rows: one dict a case, with `case` and the figures.
    """
    path = path_of(name)
    record = {"name": name, "what": what, "command": command, "machine": machine, "versions": versions, "rows": rows}
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"Wrote {path}\n")
    for row in rows:
        sys.stdout.write(f"{row}\n")

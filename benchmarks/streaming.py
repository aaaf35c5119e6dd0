"""Training on a text larger than the memory that it may take: how much memory `course train` needs at its worst."""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from rich.progress import track

from benchmarks.results import write
from course.corpora import stories

GIGABYTE = 10**9
TOLD = 20_000
"""Different stories, which are repeated until the text is long enough: nothing on the way looks for repetitions."""


def main() -> None:
    """Write the text, train on it for some seconds, and record the largest memory of the training process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text, output = Path(folder) / "stories.txt", Path(folder) / "output"
        size = synthetic(text, options.gigabytes)
        start = time.monotonic()
        command = [sys.executable, "-m", "course", "train", "docstrings-gpt", "--minutes", "0.5"]
        subprocess.run([*command, "--text", str(text), "--output", str(output)], check=True)
        seconds = time.monotonic() - start
        card = json.loads((output / "card.json").read_text("utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    write(
        "streaming",
        what="The largest resident memory of `course train docstrings-gpt --text FILE`, all in all: "
        "learning the tokenizer, turning all the text into ids, and half a minute of training.",
        command=f"python -m benchmarks.streaming --gigabytes {options.gigabytes:g}",
        machine=f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        versions={name: version(name) for name in ("torch", "datasets", "tokenizers")},
        rows=[
            {
                "case": "stories, repeated",
                "text, GB": round(size / GIGABYTE, 2),
                "peak memory, GB": round(peak / GIGABYTE, 2),
                "minutes in all": round(seconds / 60, 1),
                "steps": card["steps"],
            }
        ],
    )


def synthetic(path: Path, gigabytes: float) -> int:
    """Write so much text, and say how many bytes it has."""
    block = "".join(f"{story.text}\n\n" for story in islice(stories.stream(), TOLD)).encode()
    with path.open("wb") as file:
        for _ in track(range(max(1, round(gigabytes * GIGABYTE / len(block)))), description="writing"):
            file.write(block)
    return path.stat().st_size


if __name__ == "__main__":
    main()

"""What the course's tests share: a small course in a temporary folder, and ways to run its commands."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click.testing
import pytest

from autograder.checks import of_chapter, register
from course.chapters import section_title, title
from course.cli import main

ROOT = Path(__file__).parents[1]
CHAPTER = "01_attention"
NOTEBOOK = f"notebooks/{CHAPTER}/{CHAPTER}.ipynb"

SYMBOLS = ("softmax", "scaled_dot_product_attention", "causal_mask", "padding_mask", "SelfAttention")
QUESTIONS = ("why_scale", "choose_mask")
CHECKS = {check.name: check for check in of_chapter(CHAPTER)}
REFLECTIONS = {name: question for name, question in register().reflections.items() if question.chapter == CHAPTER}

HEAD = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
# Attention

A short chapter, made for the tests.

```{code-cell} ipython3
import math
import torch
from torch import Tensor, nn
from autograder import check
```

(softmax)=
## From scores to weights

Scores become weights.
"""

EXERCISE = """
:::{{exercise}} attention.{symbol}
Write `{symbol}`.
:::

```{{code-cell}} ipython3
:tags: [exercise]
from solutions.attention import {symbol}
```
"""

QUESTION = """
:::{{reflection}} attention.{name}
Say why, in words: {name}.
:::
"""

BIBLIOGRAPHY = """
@article{vaswani2017,
  author = {Vaswani, Ashish and Shazeer, Noam and Parmar, Niki},
  title = {Attention is all you need}, year = {2017}, url = {https://arxiv.org/abs/1706.03762}}
@book{two2020, author = {First, Ann and Second, Bob}, title = {Two}, year = {2020}}
"""


def chapter_text(middle: str = "", symbols: tuple[str, ...] = SYMBOLS, questions: tuple[str, ...] = QUESTIONS) -> str:
    """A whole chapter, with `middle` standing before the exercises."""
    exercises = "".join(EXERCISE.format(symbol=symbol) for symbol in symbols)
    return HEAD + "\n" + middle + "\n" + exercises + "".join(QUESTION.format(name=name) for name in questions)


def make_course(folder: Path, text: str = "") -> Path:
    """Make a course of one chapter, with the settings that the real one has."""
    chapters = folder / "book" / "chapters"
    chapters.mkdir(parents=True)
    (chapters / f"{CHAPTER}.md").write_text(text or chapter_text(), encoding="utf-8")
    (folder / "book" / "references.bib").write_text(BIBLIOGRAPHY, encoding="utf-8")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    return folder


@contextmanager
def course_in(folder: Path) -> Iterator[Path]:
    """Let the commands work on this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_ROOT", str(folder))
        patch.delenv("COURSE_REPOSITORY_URL", raising=False)
        patch.delenv("COURSE_GRADING_SEED", raising=False)
        for remembered in (section_title, title):
            remembered.cache_clear()
        yield folder
        for remembered in (section_title, title):
            remembered.cache_clear()


def run_course(*arguments: str) -> click.testing.Result:
    """Run `course` in this process; an exception that it should have turned into a sentence fails the test."""
    return click.testing.CliRunner(catch_exceptions=False).invoke(main, arguments)


def run_program(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the course in `cwd`, and this Python's programs first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "COURSE_ROOT": str(cwd), **variables}
    environment.pop("COURSE_REPOSITORY_URL", None)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def snapshot(folder: Path) -> dict[str, str]:
    """The content of every file under a folder, as digests."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

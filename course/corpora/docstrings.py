"""What the authors of Python, PyTorch, NumPy, Matplotlib and pandas wrote to explain their code."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets import Dataset, DatasetDict

CARD = {
    "title": "Docstrings of Python's standard library, torch, numpy, matplotlib and pandas",
    "source": "the packages installed on this machine, read by their syntax trees; nothing of them is run",
    "licence": "those of the packages: PSF-2.0 (Python), BSD-3-Clause (torch, numpy, pandas), PSF-based (matplotlib)",
    "language": "technical English, with formulas and pieces of code",
    "size": "about 24,000 texts, 11 MB",
    "note": "What it holds depends on the installed versions. Tests are left out, and texts of which half or more "
    "stands in an earlier one. Whole modules go to one split, so that a text is tested whose neighbours were not read.",
}
PACKAGES = ("torch", "numpy", "matplotlib", "pandas")
PYTHON = "python"
"""The name under which the standard library stands in the column `library`."""

SKIPPED = {"test", "tests", "testing", "idlelib", "lib2to3", "site-packages", "dist-packages", "_vendor", "__pycache__"}
SHORTEST = 40
"""Characters below which a text is left out: they are names more than sentences."""

SHINGLE = 8
"""Words in a row by which two texts are compared."""

SHARES = {"test": 0.05, "validation": 0.05}
"""Of the modules; the rest is trained on."""

Row = dict[str, str]
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def load(seed: int = 0) -> DatasetDict:
    """The splits, with the columns `text`, `summary`, `library`, `module`, `name` and `kind`.

    Args:
        seed: decides which modules go to which split.
    """
    rows: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in without_near_duplicates(harvest()):
        rows[split_of(row["module"], seed)].append(row)
    return DatasetDict({name: Dataset.from_list(split) for name, split in rows.items()})


def versions() -> dict[str, str]:
    """What the corpus is read from: library -> version."""
    return {PYTHON: platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def harvest() -> Iterator[Row]:
    """Every docstring of the libraries, in the order of their files."""
    for library, folder in _folders().items():
        for path in _files(folder):
            parts = path.relative_to(folder).with_suffix("").parts
            names = [name for name in parts if name != "__init__"]
            module = ".".join(names if library == PYTHON else [library, *names])
            for name, kind, text in documented(path.read_bytes()):
                yield {
                    "text": text, "summary": summary(text), "library": library, "module": module,
                    "name": f"{module}.{name}".strip("."), "kind": kind,
                }  # fmt: skip


def documented(source: bytes) -> Iterator[tuple[str, str, str]]:
    """The docstrings of a file that are long enough: qualified name, kind and text; none where it is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the authors', such as of an unknown escape in a string
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    waiting: list[tuple[str, str, ast.AST]] = [("", "module", tree)]
    while waiting:
        name, kind, node = waiting.pop()
        if isinstance(node, _Documented):
            text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
            if len(text) >= SHORTEST:
                yield name, kind, text
            waiting += reversed([(f"{name}.{one.name}".strip("."), _kind(one, node), one) for one in _named(node)])


def _named(node: _Documented) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The classes and functions that stand in a node's own body; what stands within a function is nobody's to read."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for one in node.body:
            if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield one


def _kind(node: ast.AST, parent: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    return "method" if isinstance(parent, ast.ClassDef) else "function"


def summary(text: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(text.split("\n\n", 1)[0].split())


def without_near_duplicates(rows: Iterable[Row]) -> Iterator[Row]:
    """Leave out a text of which half or more of the runs of eight words stood in the texts before it."""
    seen: set[int] = set()
    for row in rows:
        words = re.findall(r"\w+", row["text"].lower())
        runs = {hash(tuple(words[i : i + SHINGLE])) for i in range(max(1, len(words) - SHINGLE + 1))}
        if 2 * len(runs & seen) < len(runs):
            yield row
        seen |= runs


def split_of(module: str, seed: int) -> str:
    """The split to which all texts of a module go."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:{module}".encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if number < share:
            return split
        number -= share
    return "train"


def _folders() -> dict[str, Path]:
    folders = {PYTHON: Path(sysconfig.get_path("stdlib"))}
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        folders[name] = Path(found.origin).parent
    return folders


def _files(folder: Path) -> list[Path]:
    paths = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return [folder / path for path in sorted(paths) if not SKIPPED & set(path.parts)]

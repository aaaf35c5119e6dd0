"""Whose code a file holds, told from where the packages really lie: Python's own, an installed one's, or neither.

`sysconfig` does not know it in a jail: the interpreter there is started outside the virtual environment, and is handed
the folders of the packages one by one. So the folders are those from which the packages were in fact imported.

This module is sent where the student's code runs: it imports torch and the standard library, and holds no answer.
"""

import importlib.util
import os
import sys
from functools import lru_cache
from pathlib import Path

import torch

_PACKAGES = ("torch", "numpy", "IPython", "ipykernel", "matplotlib")
_FOLDERS = ("site-packages", "dist-packages")


def _installed() -> tuple[str, ...]:
    found = {str(Path(torch.__file__).parents[1])}
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            found.add(str(Path(spec.origin).parents[1]))
    found |= {path for path in sys.path if Path(path).name in _FOLDERS}
    return _folders(found)


def _folders(paths: set[str]) -> tuple[str, ...]:
    """With a separator at the end; and where a folder is reached by a link, code may be known by either name."""
    return tuple(sorted({name + os.sep for path in paths for name in (path, str(Path(path).resolve()))}))


INSTALLED = _installed()
"""The folders of the installed packages, each with a separator at its end, so that no other name begins like it."""

STANDARD = _folders({str(Path(os.__file__).parent)})
"""The folder of the standard library. That of the packages may lie in it."""

LIBRARIES = (*STANDARD, *INSTALLED)
"""What is no student's: for `str.startswith`."""


@lru_cache(maxsize=1024)
def is_standard(file: str) -> bool:
    """Whether a file's code, as a frame names it, is of the standard library."""
    return file.startswith("<frozen ") or (file.startswith(STANDARD) and not file.startswith(INSTALLED))

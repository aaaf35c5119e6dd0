"""Opens what lies in a submission's folder, and nothing outside it.

Every file is opened from the folder's own handle, one step at a time and never through a link, so that nothing outside
can be reached, not even if the folder changes meanwhile.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from autograder.record import Flag

MAX_ENTRIES = 1000
MAX_DEPTH = 3
COPIES = ".ipynb_checkpoints"
"""Where Jupyter keeps a copy of each notebook."""


class RefusedError(Exception):
    """The submission cannot be graded; the message says why."""


@contextmanager
def opened(top: Path, parts: Sequence[str]) -> Iterator[int]:
    """A handle of a folder below `top`, where no step down may be a link."""
    handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            handle = _step(handle, part)
        yield handle
    finally:
        os.close(handle)


def _step(handle: int, part: str) -> int:
    """Go from a folder into one within it, which must not be a link; the handle is exchanged for the new one's."""
    mode = os.stat(part, dir_fd=handle, follow_symlinks=False).st_mode
    if not stat.S_ISDIR(mode):
        what = "a link" if stat.S_ISLNK(mode) else "not a folder"
        raise RefusedError(f"`{shown(part)}` is {what}. Hand in a folder with the notebook itself.")
    below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
    os.close(handle)
    return below


def shown(name: str) -> str:
    """A file's name as it can be shown in a sentence."""
    text = re.sub(r"[\x00-\x1f\x7f`]", "?", name.encode("utf-8", "replace").decode())
    return text if len(text) <= 80 else f"{text[:77]}..."


class Folder:
    """A submission's folder while it is read: its names with modes and sizes, and the bytes of its regular files."""

    def __init__(self, handle: int, first: Sequence[str]) -> None:
        """List a folder, these names of it before any crowd of others."""
        self.handle = handle
        self.flags: list[Flag] = []
        self.digest = hashlib.sha256()
        self.entries: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        for name in first:
            with suppress(OSError):
                self._enter(name, os.stat(name, dir_fd=handle, follow_symlinks=False))
        self._list(os.dup(handle), "")

    def flag(self, kind: str, message: str) -> None:
        """Note something for the instructor."""
        self.flags.append(Flag(kind, "", message))

    def _enter(self, name: str, facts: os.stat_result) -> None:
        self.entries[name], self.sizes[name] = facts.st_mode, facts.st_size

    def _list(self, handle: int, prefix: str) -> None:
        """Enter every name below a folder with its mode; the handle is closed."""
        try:
            with os.scandir(handle) as scan:
                for entry in scan:
                    if len(self.entries) >= MAX_ENTRIES:
                        return
                    facts = os.stat(entry.name, dir_fd=handle, follow_symlinks=False)
                    self._enter(prefix + entry.name, facts)
                    # What macOS puts into archives is nobody's work; of Jupyter's own copies a person may be told.
                    tidy = not entry.name.startswith((".", "__MACOSX")) or entry.name == COPIES
                    if stat.S_ISDIR(facts.st_mode) and tidy and prefix.count("/") < MAX_DEPTH - 1:
                        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                        self._list(os.open(entry.name, flags, dir_fd=handle), f"{prefix}{entry.name}/")
        except OSError:
            self.flag("unreadable", f"`{shown(prefix or 'The folder')}` could not be listed to its end.")
        finally:
            os.close(handle)

    def content(self, name: str, limit: int) -> bytes:
        """A regular file's bytes.

        Raises:
            RefusedError: it is no regular file, or longer than the limit.
        """
        *above, last = name.split("/")
        handle = os.dup(self.handle)
        try:
            for part in above:
                handle = _step(handle, part)
            # A device may act when it is opened, so its kind is looked at before, and again after.
            self._require_regular(name, os.stat(last, dir_fd=handle, follow_symlinks=False), limit)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            with os.fdopen(os.open(last, flags, dir_fd=handle), "rb") as file:
                facts = os.fstat(file.fileno())
                self._require_regular(name, facts, limit)
                if facts.st_nlink > 1:
                    self.flag("hardlink", f"`{shown(name)}` has a second name elsewhere on the disk (a hard link).")
                data = file.read(limit + 1)
        finally:
            os.close(handle)
        if len(data) > limit:
            raise RefusedError(f"`{shown(name)}` grew while it was read.")
        self.digest.update(hashlib.sha256(data).digest())
        return data

    def _require_regular(self, name: str, facts: os.stat_result, limit: int) -> None:
        if not stat.S_ISREG(facts.st_mode):
            what = "a link" if stat.S_ISLNK(facts.st_mode) else "not a regular file"
            raise RefusedError(f"`{shown(name)}` is {what}. Hand in the file itself.")
        if facts.st_size > limit:
            size = f"{facts.st_size / 2**20:.1f} MB, and at most {limit / 2**20:.3g} MB are read"
            raise RefusedError(f"`{shown(name)}` has {size}. Clear its outputs and hand it in again.")

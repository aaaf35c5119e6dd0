"""Landlock: the kernel's own list of what a process may still do, whatever namespaces and permissions say."""

import ctypes
import os
from pathlib import Path

from autograder.jail.inside import linux

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1

_WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE = 1 << 1, 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ALL_TCP = 0b11
_ALL_SCOPES = 0b11  # abstract Unix sockets, signals

_WRITES = (
    _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_CHAR | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _MAKE_FIFO
    | _MAKE_BLOCK | _MAKE_SYM
)  # fmt: skip


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def abi() -> int:
    """The version of Landlock that this kernel offers; 0 for none."""
    try:
        return linux.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def restrict(folder: str) -> None:
    """Allow writing to /tmp, shared memory and the kernel's own terminals, and sockets in `folder`; forbid all else.

    All else that it knows: TCP, and signals and abstract sockets that lead out.
    """
    version = abi()
    # REFER moves files between folders. It is denied by any ruleset, so it must be handled to be allowed in /tmp.
    files = _WRITES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    devices = _IOCTL_DEV if version >= 5 else 0
    ruleset = _Ruleset(files | devices, _ALL_TCP if version >= 4 else 0, _ALL_SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = linux.syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0))
    for path in ("/tmp", "/dev/shm"):
        _allow(rules, path, files)
    _allow(rules, folder, files & (_WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _MAKE_SOCK))
    for path in ("/dev/null", "/dev/zero", "/dev/full"):
        _allow(rules, path, files & (_WRITE_FILE | _TRUNCATE))
    if Path("/dev/pts").is_dir():
        _allow(rules, "/dev/pts", (files & (_WRITE_FILE | _TRUNCATE)) | devices)
    linux.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = _PathBeneath(rights, place)
    linux.syscall(
        _ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0)
    )
    os.close(place)

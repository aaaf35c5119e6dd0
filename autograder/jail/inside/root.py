"""A root of its own for each kernel: read-only, with a private, size-limited /tmp, and its folder of sockets."""

import os
from contextlib import suppress
from pathlib import Path

from autograder.jail.inside import linux

_SCRATCH = "/jail/root"  # an empty folder of the outer jail
_DEVICES = ("null", "zero", "full", "random", "urandom")
_SAFE = linux.MS_NOSUID | linux.MS_NODEV
_TERMINALS = 32  # of one kernel at the same time; the machine has 4096 for all


def build(folder: str, visible: list[str], uid: int, tmp_size: int, fresh_proc: bool) -> None:
    """Build the root and move into it.

    Args:
        folder: the kernel's own folder, at the same place inside as outside; writable until `close_folder`.
        visible: files and folders of the outer jail to show, at the same place; they are read-only there already.
        uid: the kernel's user.
        tmp_size: how many bytes /tmp may hold.
        fresh_proc: mount a /proc of this namespace of process ids; otherwise show the outer one.
    """
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
    linux.mount("tmpfs", _SCRATCH, "tmpfs", _SAFE, "size=1m,mode=755")
    _tmpfs("/tmp", tmp_size)
    _devices(tmp_size)
    _terminals()
    _identity(uid)
    # The old /proc must still be in sight when a user namespace mounts a new one.
    if fresh_proc:
        linux.mount("proc", _folder("/proc"), "proc", _SAFE | linux.MS_NOEXEC)
    else:
        linux.mount("/proc", _folder("/proc"), flags=linux.MS_BIND | linux.MS_REC)
    for path in sorted([*visible, folder]):  # a folder before what lies in it
        _show(path)
    linux.pivot_root(_SCRATCH)
    linux.mount("none", "/", flags=linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | _SAFE)
    linux.mount("none", "/dev", flags=linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID)
    _close_devices()
    os.chdir("/tmp")


def close_folder(folder: str) -> None:
    """Make the kernel's folder read-only: it lies on the grader's disk. Its sockets go on working."""
    linux.mount("none", folder, flags=linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | _SAFE)


def _inside(path: str) -> str:
    return _SCRATCH + path


def _folder(path: str) -> str:
    Path(_inside(path)).mkdir(parents=True, exist_ok=True)
    return _inside(path)


def _file(path: str) -> str:
    _folder(str(Path(path).parent))
    Path(_inside(path)).touch()
    return _inside(path)


def _tmpfs(path: str, size: int) -> None:
    linux.mount("tmpfs", _folder(path), "tmpfs", _SAFE, f"size={size},nr_inodes=100000,mode=1777")


def _devices(size: int) -> None:
    linux.mount("tmpfs", _folder("/dev"), "tmpfs", linux.MS_NOSUID, "size=64k,mode=755")
    for name in _DEVICES:
        linux.mount(f"/dev/{name}", _file(f"/dev/{name}"), flags=linux.MS_BIND)
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        Path(_inside(f"/dev/{name}")).symlink_to(f"/proc/self/fd{target}")
    _tmpfs("/dev/shm", size)


def _close_devices() -> None:
    """Leave the devices' times and modes to the machine, whose they are; what they are for works all the same."""
    for path in (f"/dev/{name}" for name in _DEVICES):
        # In a namespace of users, what the machine's own mount forbids must be forbidden again.
        kept = os.statvfs(path).f_flag & (linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
        with suppress(OSError):
            linux.mount("none", path, flags=linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | kept)


def _terminals() -> None:
    """Give the kernel terminals of its own, which IPython needs for `!` and `%pip`; nobody else's are in sight.

    Where Linux refuses, the kernel starts all the same and runs such commands through pipes.
    """
    pts = _folder("/dev/pts")
    with suppress(OSError):
        flags = linux.MS_NOSUID | linux.MS_NOEXEC
        linux.mount("devpts", pts, "devpts", flags, f"newinstance,mode=600,ptmxmode=666,max={_TERMINALS}")
        Path(_inside("/dev/ptmx")).symlink_to("pts/ptmx")


def _identity(uid: int) -> None:
    Path(_file("/etc/passwd")).write_text(f"student:x:{uid}:{uid}:student:/tmp:/bin/sh\n")
    Path(_file("/etc/group")).write_text(f"student:x:{uid}:\n")
    Path(_file("/etc/hosts")).write_text("127.0.0.1 localhost\n")


def _show(path: str) -> None:
    if Path(path).is_symlink():
        _folder(str(Path(path).parent))
        Path(_inside(path)).symlink_to(Path(path).readlink())
        return
    target = _folder(path) if Path(path).is_dir() else _file(path)
    linux.mount(path, target, flags=linux.MS_BIND | linux.MS_REC)

"""Shut the calling process in: namespaces, its own root, limits, user, Landlock, seccomp."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from autograder.jail.inside import landlock, linux, root, seccomp

_NAMESPACES = {
    "files": linux.CLONE_NEWNS,
    "processes": linux.CLONE_NEWPID,
    "network": linux.CLONE_NEWNET,
    "ipc": linux.CLONE_NEWIPC,
}


@dataclass(frozen=True)
class Order:
    """What one kernel gets; the fields come as JSON from the host."""

    folder: str
    visible: list[str]
    uid: int
    as_root: bool
    without: list[str]
    limits: dict[str, int]
    env: dict[str, str]
    rehearsal: bool = False

    def has(self, layer: str) -> bool:
        """Whether this layer is on."""
        return layer not in self.without


def separate(order: Order) -> None:
    """Enter new namespaces. The one of process ids takes effect in the next child."""
    flags = sum(flag for layer, flag in _NAMESPACES.items() if order.has(layer))
    if order.as_root:
        linux.unshare(flags)
        return
    uid, gid = os.getuid(), os.getgid()
    linux.unshare(flags | linux.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{order.uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{order.uid} {gid} 1")


def confine(order: Order) -> None:
    """Apply every further layer to this process, in the order in which each still has the right to be applied."""
    if order.has("files"):
        root.build(order.folder, order.visible, order.uid, order.limits["tmp"], fresh_proc=order.has("processes"))
    set_limits(order)
    if order.has("user"):
        become(order.uid, order.as_root)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if order.has("landlock") and landlock.abi():
        landlock.restrict(order.folder)
    if order.has("seccomp") and seccomp.machine():
        seccomp.install()


def set_limits(order: Order) -> None:
    """Limit what this process may use up. The memory it has already, shared with the parent, does not count."""
    limits = order.limits
    wanted = {resource.RLIMIT_CORE: (0, 0)}
    if order.has("memory"):
        # DATA is what malloc and private maps take. AS also bounds shared maps; it has room for the address space
        # that threads reserve and never touch.
        data = _used("VmData") + limits["memory"]
        space = _used("VmSize") + 2 * limits["memory"] + (1 << 30)
        wanted |= {resource.RLIMIT_DATA: (data, data), resource.RLIMIT_AS: (space, space)}
    if order.has("process count"):
        wanted[resource.RLIMIT_NPROC] = (limits["processes"], limits["processes"])
    if order.has("file size"):
        wanted[resource.RLIMIT_FSIZE] = (limits["file_size"], limits["file_size"])
    if order.has("cpu time"):
        wanted[resource.RLIMIT_CPU] = (limits["cpu_seconds"], limits["cpu_seconds"])
    for limit, values in wanted.items():
        resource.setrlimit(limit, values)


def become(uid: int, as_root: bool) -> None:
    """Become an ordinary user without any capability."""
    linux.drop_bounding_set()
    if as_root:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    linux.drop_capabilities()
    # A change of user makes /proc/self unreadable, which libraries read.
    linux.prctl(linux.PR_SET_DUMPABLE, 1)


def _used(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0

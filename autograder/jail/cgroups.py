"""Control groups: a limit on the memory and the number of all processes of one kernel together.

Where the processor is dealt out to groups too, a kernel with many processes gets no more of it than one with few.
"""

import os
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from autograder.jail.limits import Limits

_MOUNT = Path("/sys/fs/cgroup")
_NAME = "course-jail"
_numbers = count()


@dataclass
class Group:
    """The cgroup of one kernel: one folder in version 2, one for each controller in version 1."""

    folders: list[Path] = field(default_factory=list)

    def descriptors(self) -> list[int]:
        """Open files that move into the group whoever writes 0 to them."""
        return [os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self.folders]

    def memory_kills(self) -> int:
        """How many processes were killed because the group was out of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                if (folder / name).exists():
                    words = dict(line.split() for line in (folder / name).read_text().splitlines())
                    return int(words.get("oom_kill", 0))
        return 0

    def processes(self) -> int:
        """How many processes are in it."""
        return len(self._processes())

    def cpu_seconds(self) -> float:
        """The processor's time of the processes in it, and of those that these have waited for."""
        return sum(map(_cpu_seconds, self._processes()))

    def _processes(self) -> list[str]:
        return (self.folders[0] / "cgroup.procs").read_text().split()

    def remove(self) -> None:
        """Remove the group once its processes have ended."""
        for folder in self.folders:
            _remove(folder)
        self.folders = []


def _cpu_seconds(process: str) -> float:
    try:
        fields = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def create(limits: Limits) -> Group | None:
    """Make a group with these limits, or None where this machine lets us make none."""
    wanted = {
        "memory.max": limits.memory,
        "memory.swap.max": 0,
        "memory.oom.group": 1,
        "memory.limit_in_bytes": limits.memory,
        "memory.memsw.limit_in_bytes": limits.memory,
        "pids.max": limits.processes,
    }
    group = Group()
    try:
        for parent in _parents():
            folder = parent / f"{_NAME}-{os.getpid()}-{next(_numbers)}"
            folder.mkdir()
            group.folders.append(folder)
            for name, value in wanted.items():
                if (folder / name).exists():
                    (folder / name).write_text(str(value))
    except OSError:
        group.remove()
        return None
    return group if group.folders else None


def sweep() -> None:
    """Remove the empty groups that a killed grader has left."""
    for parent in _parents():
        for folder in parent.glob(f"{_NAME}-*-*"):
            if not Path("/proc", folder.name.split("-")[2]).exists():
                _remove(folder, tries=1)


def _parents() -> list[Path]:
    """Where groups can be made: one folder (version 2), or one a controller (version 1), the memory's first."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    return _version_2(own.get("", "/")) or _version_1(own)


def _version_2(own: str) -> list[Path]:
    here = _MOUNT / own.strip("/")
    while here.is_relative_to(_MOUNT) and (_MOUNT / "cgroup.controllers").exists():
        passed_on = here / "cgroup.subtree_control"
        offered = passed_on.exists() and {"memory", "pids"} <= set(passed_on.read_text().split())
        # To move a process, its new group and the next group above both must be ours.
        if offered and os.access(here, os.W_OK) and os.access(here / "cgroup.procs", os.W_OK):
            return [here]
        here = here.parent
    return []


def _version_1(own: dict[str, str]) -> list[Path]:
    places = {name: _MOUNT / name / own[name].strip("/") for name in ("memory", "pids", "cpu") if name in own}
    usable = {
        name: place for name, place in places.items() if (place / "cgroup.procs").exists() and os.access(place, os.W_OK)
    }
    return list(usable.values()) if {"memory", "pids"} <= usable.keys() else []


def _remove(folder: Path, tries: int = 50) -> None:
    for _ in range(tries):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # the last process is still on its way out; the kernel gives no event for that
            time.sleep(0.02)
        else:
            return

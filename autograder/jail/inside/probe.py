"""Try each layer for real, in a process of its own, inside the outer jail; print what became of it as JSON."""

import errno
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from autograder.jail.inside.confine import Order, confine, separate

_BUILDS_ON = {
    "process count": {"user", "processes"},  # root is exempt; what was forked must end with the probe
    "seccomp": {"user"},
    "landlock": {"user"},
}


def main(request: str) -> None:
    """Print, for each layer, nothing or the reason why this machine has it not."""
    settings = json.loads(request)
    order = Order(**settings["order"])
    print(json.dumps({name: _in_child(partial(_separated, name, order)) for name in settings["layers"]}))


def _separated(name: str, order: Order) -> str:
    keep = {name} | _BUILDS_ON.get(name, set())
    alone = replace(order, without=[layer for layer in order.without if layer not in keep])
    before = _namespaces()
    separate(alone)
    return _in_child(partial(_confined, name, alone, before))


def _confined(name: str, order: Order, before: dict[str, str]) -> str:
    confine(order)
    return "" if _HOLDS[name](order, before) else "it was applied, but does not hold."


def _in_child(action: Callable[[], str]) -> str:
    """What the action says in a forked process; an error says what is missing."""
    reader, writer = os.pipe()
    if not os.fork():
        os.close(reader)
        try:
            said = action()
        except Exception as error:
            said = str(error) or type(error).__name__
        os.write(writer, said.encode()[:4096])
        os._exit(0)
    os.close(writer)
    os.wait()
    with os.fdopen(reader) as pipe:
        return pipe.read()


def _namespaces() -> dict[str, str]:
    return {name: str(Path("/proc/self/ns", name).readlink()) for name in ("net", "ipc")}


def _no_privileges(order: Order, _: object) -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    sets = [int(line.split()[1], 16) for line in status if line.startswith("Cap")]
    return os.getuid() == order.uid and not any(sets)


def _memory_ends(order: Order, _: object) -> bool:
    try:
        bytearray(2 * order.limits["memory"])
    except MemoryError:
        return True
    return False


def _forks_end(order: Order, _: object) -> bool:
    for _ in range(order.limits["processes"] + 1):
        try:
            pid = os.fork()
        except BlockingIOError:
            return True
        if not pid:
            signal.pause()
    return False


def _file_ends(order: Order, _: object) -> bool:
    file = os.memfd_create("probe")
    return _fails(lambda: os.pwrite(file, b"x", order.limits["file_size"]), errno.EFBIG)


def _fails(action: Callable[[], object], *errors: int) -> bool:
    try:
        action()
    except OSError as error:
        return error.errno in errors
    return False


_HOLDS: dict[str, Callable[[Order, dict[str, str]], bool]] = {
    "files": lambda order, _: not Path("/jail").exists() and Path(order.folder).exists(),
    "processes": lambda *_: os.getpid() == 1,
    "network": lambda _, before: _namespaces()["net"] != before["net"],
    "ipc": lambda _, before: _namespaces()["ipc"] != before["ipc"],
    "user": _no_privileges,
    "memory": _memory_ends,
    "process count": _forks_end,
    "file size": _file_ends,
    "cpu time": lambda order, _: resource.getrlimit(resource.RLIMIT_CPU)[0] == order.limits["cpu_seconds"],
    "landlock": lambda *_: _fails(lambda: Path("/jail/home/landlock").touch(), errno.EACCES),
    "seccomp": lambda *_: _fails(lambda: socket.socket(socket.AF_INET), errno.EOPNOTSUPP),
}

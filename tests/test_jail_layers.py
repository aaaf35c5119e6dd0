"""Each layer of the jail holds by itself: an attack that it alone stops succeeds without it."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from jail import PRESENT, cell, light_jails

from autograder.jail import WarmJail
from autograder.jail.layers import LAYERS, NAMES, probe

ROOT = Path(__file__).parents[1]
KEY = 0x6A61696C


@dataclass(frozen=True)
class Attack:
    """Code that runs to its end when nothing stops it."""

    layer: str
    name: str
    code: str
    keep: frozenset[str] = frozenset()  # layers that are on in both runs, because the attack needs them


_X86 = os.uname().machine == "x86_64"
_HEAD = """
import ctypes, os, select, socket, time
libc = ctypes.CDLL(None, use_errno=True)
given = os.environ

def call(*arguments):
    reader, writer = os.pipe()
    if not os.fork():  # many calls refuse to act on a process with threads
        refused = libc.syscall(*arguments) < 0 and ctypes.get_errno() in (1, 38)  # EPERM, ENOSYS
        os.write(writer, b"x" if refused else b"")
        os._exit(0)
    os.close(writer)
    assert not os.read(reader, 1)

"""
_FORKS = """
reader, writer = os.pipe()
pids = []
try:
    for _ in range(100):
        pid = os.fork()
        if not pid:
            os.close(writer); os.read(reader, 1); os._exit(0)
        pids.append(pid)
finally:
    os.close(writer)
    for pid in pids: os.waitpid(pid, 0)
"""
_MEMORY_TOGETHER = """
reader, writer = os.pipe()
ready, tell = os.pipe()
pids = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        os.close(writer)
        block = bytearray(100 << 20); block[::4096] = b"x" * len(block[::4096])
        os.write(tell, b"x"); os.read(reader, 1); os._exit(0)
    pids.append(pid)
ends = [os.pidfd_open(pid) for pid in pids]
got = b""
while len(got) < 4 and not select.select(ends, [], [], 0)[0]:
    got += os.read(ready, 4) if ready in select.select([ready, *ends], [], [])[0] else b""
os.close(writer)
assert all([os.waitpid(pid, 0)[1] == 0 for pid in pids]) and len(got) == 4
"""
_TCP = "socket.create_connection(('127.0.0.1', int(given['TCP'])), 5)"
_UDP = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', int(given['UDP'])))"
_ABSTRACT = "socket.socket(socket.AF_UNIX).connect('\\0' + given['NAME'])"
_WRITE = "open(given['SECRET'] + '-mine', 'w').close()"
_SIGNAL = "os.kill(int(given['VICTIM']), 18)"
_PRIVILEGES = "assert 'CapEff:\\t0000000000000000' not in open('/proc/self/status').read()"
_FILES = frozenset({"files"})  # where Python's own files lie in another user's home, only this layer shows them

ATTACKS = [
    Attack("files", "reads a file", "open(given['SECRET']).read()"),
    Attack("files", "writes a file", _WRITE),
    Attack("files", "reads the references", "open(given['REFERENCE']).read()"),
    Attack("files", "fills the grader's disk", "open(given['FOLDER'] + '/new', 'w').close()"),
    Attack("files", "sees another submission", "os.listdir(given['OTHER'])"),
    Attack("files", "sees POSIX shared memory", "os.stat('/dev/shm/' + given['NAME'])"),
    Attack("processes", "signals a process", _SIGNAL),
    Attack("processes", "sees a process", "os.stat('/proc/' + given['VICTIM'])", _FILES),
    Attack("network", "TCP", _TCP),
    Attack("network", "UDP", _UDP),
    Attack("network", "abstract socket", _ABSTRACT),
    Attack("ipc", "System V shared memory", f"assert libc.shmget({KEY}, 0, 0) >= 0"),
    Attack("user", "has privileges", _PRIVILEGES, _FILES),
    Attack("memory", "one large block", "block = bytearray(400 << 20)"),
    Attack("process count", "forks", _FORKS, _FILES | {"user"}),
    Attack("file size", "a large file", "open(given['FOLDER'] + '/large', 'wb').write(bytes(2 << 20))"),
    Attack("cpu time", "an endless loop", "while time.process_time() < 3: pass"),
    Attack("cgroup", "memory of many processes", _MEMORY_TOGETHER),
    Attack("cgroup", "forks", _FORKS),
    Attack("landlock", "writes a file", _WRITE),
    Attack("landlock", "TCP", _TCP),
    Attack("landlock", "signals a process", _SIGNAL),
    Attack("landlock", "abstract socket", _ABSTRACT),
    Attack("seccomp", "ptrace", f"call({101 if _X86 else 117}, 0, 0, 0, 0)"),
    Attack("seccomp", "unshare", f"call({272 if _X86 else 97}, 0x10000000)"),
    Attack("seccomp", "clone into namespaces", f"call({56 if _X86 else 220}, 0x30000000 | 17, 0, 0, 0, 0)"),
    Attack("seccomp", "clone3", "call(435, 0, 0)"),
    Attack("seccomp", "mount", f"call({165 if _X86 else 40}, b'none', b'/tmp', 0, 1 << 19, 0)", _FILES),
    Attack("seccomp", "io_uring", "call(425, 1, 0)"),
    Attack("seccomp", "TCP", _TCP),
]


@pytest.fixture(scope="module")
def jails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[frozenset[str]], WarmJail]]:
    """Started jails by the layers that they have."""
    with light_jails(tmp_path_factory.mktemp("library")) as jail:
        yield jail


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What there is to attack on the host, by the names under which an attack finds it in its environment."""
    name = f"jail-test-{os.getpid()}"
    note = Path("/dev/shm", name)
    memory = ctypes.CDLL(None).shmget(KEY, 4096, 0o1666)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as abstract,
        TemporaryDirectory(dir="/var/tmp") as elsewhere,  # Landlock lets a kernel write to /tmp
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim,
    ):
        udp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0{name}")
        abstract.listen()
        note.touch()
        secret = Path(elsewhere, "secret")
        secret.write_text("6 points")
        yield {
            "SECRET": str(secret),
            "REFERENCE": str(next((ROOT / "solutions").glob("attention*"))),
            "OTHER": str(tmp_path_factory.mktemp("other")),
            "VICTIM": str(victim.pid),
            "TCP": str(tcp.getsockname()[1]),
            "UDP": str(udp.getsockname()[1]),
            "NAME": name,
        }
        note.unlink()
        ctypes.CDLL(None).shmctl(memory, 0, None)
        victim.kill()


def outcome(jail: WarmJail, attack: Attack, world: dict[str, str]) -> str:
    with cell(jail, world) as kernel:
        return kernel.run(f"{_HEAD}{attack.code}\nprint('through')")


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.layer}: {attack.name}")
def test_a_layer_alone_stops_what_gets_through_without_it(
    attack: Attack, jails: Callable[[frozenset[str]], WarmJail], world: dict[str, str]
) -> None:
    assert outcome(jails(attack.keep), attack, world) == "through"
    Path(world["SECRET"] + "-mine").unlink(missing_ok=True)
    stopped = "through" not in outcome(jails(attack.keep | {attack.layer}), attack, world)
    assert stopped == PRESENT[attack.layer]  # on a machine without the layer, the probe says so


def test_every_layer_is_attacked() -> None:
    assert {attack.layer for attack in ATTACKS} == NAMES


def test_the_probe_says_why_a_layer_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    statuses = probe()
    assert [status.layer for status in statuses] == list(LAYERS)
    assert not any(status.present for status in statuses)
    assert all("sudo apt install bubblewrap" in status.why for status in statuses)

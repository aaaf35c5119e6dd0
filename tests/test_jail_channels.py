"""Two kernels that run at the same time cannot speak to each other through what both of them see."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jail import PRESENT, cell, light_jails

from autograder.jail import WarmJail
from autograder.jail.layers import NAMES

pytestmark = pytest.mark.slow
_HEAD = f"""
import ctypes, fcntl, os, select, signal, struct, time
libc = ctypes.CDLL(None, use_errno=True)
shared, folder = {json.__file__!r}, {str(Path(json.__file__).parent)!r}
file, null = open(shared, 'rb'), open('/dev/null', 'rb')
def first_byte(kind):
    return struct.pack('hhqqi4x', kind, 0, 0, 1, 0)
def free(open_file):
    try:
        fcntl.flock(open_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(open_file, fcntl.LOCK_UN)
    except BlockingIOError:
        return False
    return True
def asked(command):
    return struct.unpack('hhqqi4x', fcntl.fcntl(file, command, first_byte(fcntl.F_WRLCK)))[0]
"""


@dataclass(frozen=True)
class Channel:
    """What one kernel says, and how the other listens: the channel is closed if it sees the same before and after."""

    name: str
    says: str
    hears: str
    begins: str = ""
    open_without: str = ""  # the layer that closes it


_WATCH = """
watch = libc.inotify_init()
libc.inotify_add_watch(watch, folder.encode(), 0x21)
"""
_SIGNALLED = """
told = []
signal.signal(signal.SIGIO, lambda *_: told.append(1))
place = os.open(folder, os.O_RDONLY)
try: fcntl.fcntl(place, fcntl.F_NOTIFY, fcntl.DN_ACCESS | fcntl.DN_MULTISHOT)
except OSError: pass
"""
CHANNELS = [
    Channel("flock", "fcntl.flock(file, fcntl.LOCK_EX)", "free(file)", open_without="seccomp"),
    Channel("flock on a device", "fcntl.flock(null, fcntl.LOCK_EX)", "free(null)", open_without="seccomp"),
    Channel(
        "flock on the machine's facts",
        "cpu = open('/sys/devices/system/cpu/online'); fcntl.flock(cpu, fcntl.LOCK_EX)",
        "free(open('/sys/devices/system/cpu/online'))",
        open_without="seccomp",
    ),
    Channel("POSIX lock", "fcntl.lockf(file, fcntl.LOCK_SH)", "asked(fcntl.F_GETLK)", open_without="seccomp"),
    Channel(
        "lock of an open file", "fcntl.fcntl(file, 37, first_byte(fcntl.F_RDLCK))", "asked(36)", open_without="seccomp"
    ),
    Channel(
        "inotify", "open(shared).read()", "bool(select.select([max(watch, 0)], [], [], 0.5)[0]) and watch > 0", _WATCH,
        "seccomp",
    ),
    Channel("dnotify", "open(shared).read(1)", "time.sleep(0.2) or bool(told)", _SIGNALLED, "seccomp"),
    Channel("times of a device", "os.utime('/dev/null')", "os.stat('/dev/null').st_mtime_ns"),
    Channel("mode of a device", "os.chmod('/dev/null', 0o600)", "os.stat('/dev/null').st_mode"),
    Channel("terminals", "pair = os.openpty()", "os.listdir('/dev/pts')"),
]  # fmt: skip


@pytest.fixture(scope="module")
def jails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[frozenset[str]], WarmJail]]:
    with light_jails(tmp_path_factory.mktemp("library")) as jail:
        yield jail


def heard(jail: WarmJail, channel: Channel) -> tuple[str, str]:
    """What the second kernel sees before and after the first one speaks."""
    with cell(jail) as one, cell(jail) as other:
        for kernel in (one, other):
            assert kernel.run(_HEAD) == ""
        assert other.run(channel.begins) == ""
        before = other.run(f"print({channel.hears})")
        one.run(channel.says)
        return before, other.run(f"print({channel.hears})")


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_a_kernel_cannot_be_heard_by_another(channel: Channel, jails: Callable[[frozenset[str]], WarmJail]) -> None:
    before, after = heard(jails(NAMES), channel)
    assert before == after or not PRESENT[channel.open_without or "files"]
    assert "Error" not in before


@pytest.mark.parametrize("channel", [one for one in CHANNELS if one.open_without], ids=lambda channel: channel.name)
def test_without_the_layer_it_can(channel: Channel, jails: Callable[[frozenset[str]], WarmJail]) -> None:
    before, after = heard(jails(NAMES - {channel.open_without}), channel)
    assert before != after


def test_nobody_is_told_who_has_opened_a_file(jails: Callable[[frozenset[str]], WarmJail]) -> None:
    """A lease is refused while another has the file open, so asking for one is listening."""
    code = f"""
import fcntl
for path in ({json.__file__!r}, '/tmp/own'):
    try: fcntl.fcntl(open(path, 'ab+' if path.startswith('/tmp') else 'rb'), fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error: print(error.errno)
"""
    with cell(jails(NAMES)) as kernel:
        assert kernel.run(code) == (f"{errno.EPERM}\n{errno.EPERM}" if PRESENT["seccomp"] else kernel.run(code))


HONEST = {
    "sqlite": """
import sqlite3
for path in ('/tmp/a.db', ':memory:'):
    base = sqlite3.connect(path)
    base.execute('create table t (x)'); base.execute('insert into t values (3)'); base.commit()
    print(base.execute('select x from t').fetchone())
    base.close()
""",
    "filelock": "from filelock import FileLock\nwith FileLock('/tmp/lock'): print('in')",
    "flock": "import fcntl\nwith open('/tmp/x', 'w') as f:\n    fcntl.flock(f, fcntl.LOCK_EX)\n    print(f.write('x'))",
    "shelve": "import shelve\nwith shelve.open('/tmp/shelf') as s:\n    s['a'] = 1\n    print(s['a'])",
    "processes": "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: print(p.map(abs, [-1, -2]))",
    "a device": "open('/dev/null', 'w').write('x'); print(open('/dev/zero', 'rb').read(1))",
    "a file that grows": "!echo 5 > /tmp/grows; timeout 1 tail -f /tmp/grows",
}


@pytest.mark.parametrize("name", HONEST)
def test_what_takes_locks_in_its_own_folder_goes_on(name: str, jails: Callable[[frozenset[str]], WarmJail]) -> None:
    with cell(jails(NAMES)) as kernel:
        said = kernel.run(HONEST[name])
    assert said
    assert "Error" not in said


def test_the_filter_knows_the_numbers_of_this_system() -> None:
    from autograder.jail.inside import seccomp

    if os.uname().machine != "x86_64":
        pytest.skip("the constants of fcntl are the same; the numbers of calls are those of x86-64")
    assert {fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW} < set(seccomp._FCNTL_VOID)
    assert {fcntl.F_SETLEASE, fcntl.F_NOTIFY} == set(seccomp._FCNTL_DENIED)

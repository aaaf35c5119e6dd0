"""A seccomp filter: system calls that no notebook needs and that have opened jails before are refused.

Refused or made void are also those by which two kernels could speak to each other through a file that both may only
read, such as one of Python's own: locks, leases, and being told of what is done with it. A lock is said to have been
taken, for programs such as SQLite stop without it, and a kernel, alone with its files, needs none.

What this cannot close, and what would take two accomplices who are graded at the same moment: a futex on a page that
both have mapped, what is in the page cache, how busy the machine is and the other counters of the whole machine in
/proc.
"""

import ctypes
import errno
import platform
import socket
import struct
from itertools import chain

from autograder.jail.inside import linux

# The numbers of each system call: on x86-64, on ARM 64. None where there is no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    "unshare": (272, 97), "setns": (308, 268),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "syslog": (103, 116), "fanotify_init": (300, 262), "lookup_dcookie": (212, 18),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58), "personality": (135, 92),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "uselib": (134, None), "ustat": (136, None),
    "sysfs": (139, None), "nfsservctl": (180, 42),
}  # fmt: skip
_VOID: dict[str, tuple[int | None, int | None]] = {"flock": (73, 32)}
_UNKNOWN = {"inotify_init": (253, None), "inotify_init1": (294, 26), "clone3": (435, 435)}
"""Said not to exist, so that whoever asks takes another way: `tail -f` looks again and again, libc uses `clone`."""
_FCNTL = (72, 25)
_FCNTL_VOID = (5, 6, 7, 36, 37, 38)  # F_GETLK, F_SETLK, F_SETLKW, and the same for open files
_FCNTL_DENIED = (1024, 1026)  # F_SETLEASE, F_NOTIFY
_CLONE = (56, 220)
_SOCKET = (41, 198)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_NEW_NAMESPACES = 0x7E020000
_X32 = 0x40000000  # a second set of numbers for the same calls on x86-64

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT, _SECOND = 0, 4, 16, 24  # places in struct seccomp_data; low halves of arguments
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_ERROR = 0x00050000
_MODE_FILTER = 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def machine() -> tuple[int, int] | None:
    """The column of the tables and the architecture's number, or None where the filter has no table."""
    return _MACHINES.get(platform.machine())


def program() -> bytes:
    """The filter for this machine, in the kernel's BPF."""
    found = machine()
    if found is None:
        raise OSError(errno.ENOSYS, f"no seccomp table for {platform.machine()}")
    column, architecture = found
    refuse = _step(_RETURN, _ERROR | errno.EPERM)
    unsupported = _step(_RETURN, _ERROR | errno.EOPNOTSUPP)  # ZeroMQ takes this for "no such network", others for a bug
    unknown = _step(_RETURN, _ERROR | errno.ENOSYS)
    void = _step(_RETURN, _ERROR)  # the call returns 0, and nothing was done
    allow = _step(_RETURN, _ALLOW)
    code = [_step(_LOAD, _ARCHITECTURE), _step(_JUMP_EQUAL, architecture, 1, 0), _step(_RETURN, _KILL)]
    code += [_step(_LOAD, _NUMBER)]
    if column == 0:
        code += [_step(_JUMP_AT_LEAST, _X32, 0, 1), _step(_RETURN, _KILL)]
    for calls, answer in ((_UNKNOWN, unknown), (_VOID, void), (_DENIED, refuse)):
        for number in (numbers[column] for numbers in calls.values()):
            code += _if_equal(number, answer) if number is not None else []
    fcntl = [_if_equal(command, void) for command in _FCNTL_VOID]
    fcntl += [_if_equal(command, refuse) for command in _FCNTL_DENIED]
    code += _if_equal(_FCNTL[column], _step(_LOAD, _SECOND), *chain.from_iterable(fcntl), allow)
    namespaces = _step(_JUMP_ANY_BIT, _NEW_NAMESPACES, 0, 1)
    code += _if_equal(_CLONE[column], _step(_LOAD, _ARGUMENT), namespaces, refuse, allow)
    local = _step(_JUMP_EQUAL, socket.AF_UNIX, 1, 0)
    code += _if_equal(_SOCKET[column], _step(_LOAD, _ARGUMENT), local, unsupported)
    return b"".join([*code, allow])


def _if_equal(value: int, *steps: bytes) -> list[bytes]:
    """Steps that are taken if what was loaded is this value, and jumped over if not."""
    return [_step(_JUMP_EQUAL, value, 0, len(steps)), *steps]


def install() -> None:
    """Apply the filter to this process and all it starts. Needs no_new_privs."""
    code = program()
    filled = _Program(len(code) // 8, code)
    linux.prctl(linux.PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filled))


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)

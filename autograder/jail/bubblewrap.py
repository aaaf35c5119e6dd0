"""The outer jail: the command line of bubblewrap."""

import os
import sys
from pathlib import Path

from autograder.jail import view

_UNSHARE = {"processes": "pid", "network": "net", "ipc": "ipc"}
# What the parent inside needs, when the grader is root, to shut its kernels in.
_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL")
_ENVIRONMENT = {
    "PATH": f"{Path(sys.prefix) / 'bin'}:{Path(sys.executable).resolve().parent}:/usr/bin:/bin",
    "PIP_NO_INDEX": "1",  # there is no network, and pip would try it again and again
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "LANG": "C.UTF-8",
    "USER": "student",
    "HOME": "/jail/home",
    "TMPDIR": "/jail/home",
    "MPLCONFIGDIR": "/jail/home",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torchinductor",  # each kernel's own; the parent's, which it would take, is gone
    "TRITON_CACHE_DIR": "/tmp/triton",
    "TORCHDYNAMO_DISABLE": "1",  # `torch.compile` gives its function back: compiling takes longer than a cell may
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # each arena reserves address space, which is limited
}


def command(shown: list[str], folders: Path, without: frozenset[str], code: str, *options: str) -> list[str]:
    """Run Python code in the outer jail.

    Args:
        shown: what it sees, read-only.
        folders: where the kernels' folders lie; the one place of the host that it can write to.
        without: layers to leave off.
        code: what Python executes; of the course it can import `autograder.jail.inside` alone.
        options: further ones of bubblewrap's.
    """
    arguments = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", *options]
    for name, value in _ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    arguments += [f"--unshare-{option}" for layer, option in _UNSHARE.items() if layer not in without]
    if os.getuid() == 0 and "user" not in without:
        arguments += ["--cap-drop", "ALL"]
        for capability in _CAPABILITIES:
            arguments += ["--cap-add", capability]
    here = Path(__file__).parent
    if "files" in without:
        arguments += ["--dev-bind", "/", "/"]
        place = here / "kernels"  # nothing can be added to the host's root; this folder is not needed inside
    else:
        arguments += _own_system(shown, folders, without)
        place = Path("/jail")
    arguments += ["--tmpfs", str(place), "--dir", f"{place}/home", "--dir", f"{place}/root"]
    arguments += ["--ro-bind", str(here / "inside"), f"{place}/autograder/jail/inside"]
    # -S: no .pth file of the installed packages is executed, so an editable installation leads nowhere.
    python = [
        str(Path(sys.executable).resolve()),
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(place)!r}); {code}",
    ]
    return [*arguments, "--chdir", "/", *python]


def _own_system(shown: list[str], folders: Path, without: frozenset[str]) -> list[str]:
    arguments = ["--dev", "/dev"]
    arguments += ["--dev-bind", "/proc", "/proc"] if "processes" in without else ["--proc", "/proc"]
    # The folders are seen by the parent alone; a kernel's root holds its own one only.
    arguments += ["--tmpfs", "/tmp", "--bind", str(folders), str(folders)]
    for path in shown:
        link = Path(path).is_symlink()
        arguments += ["--symlink", str(Path(path).readlink()), path] if link else ["--ro-bind", path, path]
    for path in view.masked():
        arguments += ["--tmpfs", path]
    return arguments

"""What of this machine's files a jail shows."""

import sys
import sysconfig
from pathlib import Path

_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives", "/etc/fonts",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types",
    "/sys/devices/system/cpu",  # how many cores there are, and what they can do
)  # fmt: skip
_COURSE = ("autograder", "course", "solutions")


def visible(library: Path) -> list[str]:
    """The system, the Python installation, its packages and the library: each path once, none inside another."""
    python = [sys.base_prefix, sys.base_exec_prefix, sysconfig.get_path("stdlib"), str(Path(sys.executable).resolve())]
    if sys.prefix != sys.base_prefix:
        python.append(sys.prefix)  # the virtual environment alone, wherever it lies
    wanted = [*_SYSTEM, *python, *packages(), str(library)]
    kept: list[str] = []
    for path in sorted({path for path in wanted if Path(path).exists()}):
        if not any(Path(path).is_relative_to(other) and not Path(other).is_symlink() for other in kept):
            kept.append(path)
    return kept


def packages() -> list[str]:
    """The folders with the installed packages."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages") and Path(path).is_dir()]


def masked() -> list[str]:
    """The course's own packages where they are installed among the others: these must not be seen."""
    return [str(Path(place, name)) for place in packages() for name in _COURSE if Path(place, name).is_dir()]


def modules(library: Path) -> list[str]:
    """The import names of everything in the library."""
    files = sorted(path.relative_to(library).with_suffix("") for path in library.rglob("*.py"))
    parts = [file.parts[:-1] if file.name == "__init__" else file.parts for file in files]
    return [".".join(names) for names in parts if names and all(name.isidentifier() for name in names)]

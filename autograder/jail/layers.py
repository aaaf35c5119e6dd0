"""The jail's layers, by name: what each is for, and whether this machine has it."""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from autograder.jail import bubblewrap, cgroups, view
from autograder.jail.limits import Limits

INSTALL = "Install the package `bubblewrap` (Debian, Ubuntu: `sudo apt install bubblewrap`)"
_ADVICE = (
    "Linux must let this user make namespaces: grade as root, or have an administrator set "
    "`sysctl kernel.unprivileged_userns_clone=1` (Debian) or `sysctl kernel.apparmor_restrict_unprivileged_userns=0` "
    "(Ubuntu); a container must be started with leave to make them."
)
_NO_CGROUP = (
    "no group with memory and pids can be made here. Grade as root, or start the grading with "
    "`systemd-run --user --scope -p Delegate=yes`"
)


@dataclass(frozen=True)
class Layer:
    """One independent line of defence."""

    name: str
    keeps: str
    mandatory: bool = True


LAYERS = (
    Layer("files", "sees the system read-only, and nothing of the course or of other students"),
    Layer("processes", "sees and signals its own processes only; all of them end with it"),
    Layer("network", "has no network"),
    Layer("ipc", "shares no memory or queue with other processes"),
    Layer("user", "runs as a user of its own without privileges"),
    Layer("memory", "each of its processes gets so much memory and no more"),
    Layer("process count", "starts so many processes and no more"),
    Layer("file size", "writes files of a limited size"),
    Layer("cpu time", "computes so long and no longer"),
    Layer("cgroup", "all of its processes together get so much memory and no more", mandatory=False),
    Layer("landlock", "writes to its own places only, whatever permissions say", mandatory=False),
    Layer("seccomp", "cannot use the system calls that have opened jails before", mandatory=False),
)
NAMES = frozenset(layer.name for layer in LAYERS)


@dataclass(frozen=True)
class Status:
    """Whether this machine has a layer; `why` says what is missing and what to do."""

    layer: Layer
    why: str = ""

    @property
    def present(self) -> bool:
        """Whether it can be used."""
        return not self.why


def probe() -> list[Status]:
    """Try each layer for real; takes about a second."""
    if shutil.which("bwrap") is None:
        return [Status(layer, f"bubblewrap is not installed. {INSTALL}.") for layer in LAYERS]
    limits = Limits(memory=64 << 20, processes=16, file_size=1 << 16, tmp=1 << 20, cpu_seconds=100)
    inner = [layer.name for layer in LAYERS if layer.name != "cgroup"]
    said = _tried(inner, limits, frozenset())
    if said is None:  # the whole does not start: find out which layers stand in the way
        said = {name: _alone(name, limits) for name in inner}
    group = cgroups.create(limits)
    said["cgroup"] = "" if group else _NO_CGROUP
    if group:
        group.remove()
    return [Status(layer, _advise(layer, said[layer.name])) for layer in LAYERS]


def _alone(name: str, limits: Limits) -> str:
    said = _tried([name], limits, NAMES - {name, "files"})
    return "bubblewrap cannot start with it" if said is None else said[name]


def _tried(names: list[str], limits: Limits, without: frozenset[str]) -> dict[str, str] | None:
    """What the inside says of each layer; None when bubblewrap does not start without `without`."""
    with tempfile.TemporaryDirectory() as folder:
        shown = view.visible(Path(folder))
        order = {
            "folder": folder,
            "visible": [path for path in shown if path != folder],
            "uid": 60000,
            "as_root": os.getuid() == 0,
            "without": sorted(NAMES),
            "limits": asdict(limits),
            "env": {},
        }
        code = f"from autograder.jail.inside.probe import main; main({json.dumps({'layers': names, 'order': order})!r})"
        command = bubblewrap.command(shown, Path(tempfile.gettempdir()), without, code)
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return dict(json.loads(run.stdout)) if run.returncode == 0 else None


def _advise(layer: Layer, why: str) -> str:
    if not why:
        return ""
    advice = _ADVICE if layer.mandatory else "The other layers still hold."
    return f"{why.rstrip('.')}. {advice}"

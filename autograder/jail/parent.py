"""The host's side of the jail: one warm parent in bubblewrap, and the kernels that it forks."""

import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autograder.jail import bubblewrap, cgroups, view
from autograder.jail.inside.parent import CAP, IMPORTS
from autograder.jail.kernel import JailedKernel
from autograder.jail.layers import INSTALL, NAMES
from autograder.jail.leases import lease_uid
from autograder.jail.limits import Limits
from course.chapters import CourseError

_START_SECONDS = 120
_SPAWN_SECONDS = 60
_CLOSE_SECONDS = 5
_RUN = "from autograder.jail.inside.parent import main; main({channel})"


class JailError(CourseError):
    """Isolation cannot be had; the message says what is missing and what to do."""


class WarmJail:
    """A Python in bubblewrap that has imported what notebooks need, and forks jailed kernels in milliseconds.

    Start it from a thread that lives as long as the jail: when that thread ends, Linux ends the jail.
    """

    def __init__(
        self,
        library: Path,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        without: frozenset[str] = frozenset(),
        *,
        folders: Path | None = None,
        imports: Sequence[str] = IMPORTS,
    ) -> None:
        """Describe a jail.

        Args:
            library: the folder from which kernels import; nothing else of the course can be imported.
            limits: what one kernel may use.
            without: names of layers to leave off, for tests.
            folders: every kernel's folder lies below this one; the system's temporary folder by default.
            imports: what is imported once for all kernels, beside everything in the library.
        """
        unknown = sorted(without - NAMES)
        if unknown:
            raise ValueError(f"no layer is called {unknown[0]!r}; the layers are {', '.join(sorted(NAMES))}.")
        self.library = library.resolve()
        self.limits = limits
        self.without = without
        self.folders = (folders or Path(tempfile.gettempdir())).resolve()
        self._imports = [*imports, *view.modules(self.library)]
        self._visible = view.visible(self.library)
        self._kernels: dict[int, JailedKernel] = {}
        self._numbers = 0
        self._lock = threading.RLock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._first: int | None = None  # a descriptor of the first process inside
        self._owner = os.getpid()

    def start(self) -> None:
        """Launch bubblewrap, wait until everything is imported, and try every layer once; raises JailError."""
        if shutil.which("bwrap") is None:
            raise JailError(f"bubblewrap is not installed, so nothing can be isolated. {INSTALL}. Nothing was graded.")
        cgroups.sweep()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe()
        command = bubblewrap.command(
            self._visible,
            self.folders,
            self.without,
            _RUN.format(channel=theirs.fileno()),
            *("--info-fd", str(writer)),
        )
        with tempfile.TemporaryFile() as log, theirs, os.fdopen(reader) as info:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno(), writer], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            theirs.close()  # so that the end of the parent can be seen
            os.close(writer)
            said = info.read()
            self._first = os.pidfd_open(json.loads(said)["child-pid"]) if said else None
            answer = self._greet()
            if not answer.get("ready"):
                self.close()
                log.seek(0)
                why = answer.get("error") or log.read().decode(errors="replace").strip()
                raise JailError(_refusal(f"the jail did not start: {why or 'bubblewrap ended without a word'}"))
        self._rehearse()

    def spawn(self, folder: Path, env: dict[str, str] | None = None, rehearsal: bool = False) -> JailedKernel:
        """Fork a kernel whose connection file is `folder/kernel.json`; returns when its sockets answer.

        Args:
            folder: the kernel's private folder, below `folders`, at the same place inside as outside; it becomes the
                property of the kernel's user, with the files that it holds now. The kernel makes its sockets there;
                before its first cell runs, the folder becomes read-only for it.
            env: environment variables for the kernel, beside the jail's own.
            rehearsal: shut a process in, and end it where a kernel would begin.
        """
        folder = folder.resolve()
        if not folder.is_relative_to(self.folders) or folder == self.folders:
            raise ValueError(f"{folder} is not below {self.folders}, the folder that this jail shows to kernels.")
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as ready, os.fdopen(writer, "wb", buffering=0) as tell:
            kernel = self._fork(folder, env or {}, rehearsal, tell.fileno())
            tell.close()
            said = ready.read(4096) if select.select([ready], [], [], _SPAWN_SECONDS)[0] else b""
        if said != b"ready":
            kernel.kill()
            raise JailError(
                _refusal(f"a kernel could not be shut in: {said.decode(errors='replace') or 'it did not answer'}")
            )
        return kernel

    def close(self) -> None:
        """End the parent and every kernel, and wait until they are gone."""
        if self._channel is not None:
            if self._owner == os.getpid():  # a forked grader must not end its parent's jail
                self._channel.shutdown(socket.SHUT_RDWR)
            self._channel.close()
            self._channel = None
        if self._process is not None and self._owner == os.getpid():
            # Bubblewrap itself ends a little before the first process inside, which ends after all others.
            if self._first is None or not select.select([self._first], [], [], _CLOSE_SECONDS)[0]:
                self._process.kill()
            self._process.wait()
            self._process = None
        if self._first is not None:
            os.close(self._first)
            self._first = None
        for kernel in list(self._kernels.values()):
            kernel.ended(-9)
        self._kernels.clear()

    @property
    def alive(self) -> bool:
        """Whether this process can spawn kernels in it."""
        return self._owner == os.getpid() and self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int | None:
        """Of bubblewrap, whose child is the first process inside."""
        return self._process.pid if self._process else None

    def _rehearse(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.folders) as folder:
            try:
                self.spawn(Path(folder), rehearsal=True).wait(_SPAWN_SECONDS)
            except BaseException:
                self.close()
                raise

    def _fork(self, folder: Path, env: dict[str, str], rehearsal: bool, ready: int) -> JailedKernel:
        leased = lease_uid()
        if leased is None:
            raise JailError("every user id of the jail is taken. Wait until other graders have ended.")
        uid, lease = leased
        group = None if "cgroup" in self.without else cgroups.create(self.limits)
        descriptors = group.descriptors() if group else []
        if os.getuid() == 0 and "user" not in self.without:
            for path in [folder, *folder.iterdir()]:
                os.chown(path, uid, uid, follow_symlinks=False)
        home = str(folder) if "files" in self.without else "/tmp"  # private, if not by a layer
        # What it starts by `!python` or `multiprocessing` finds the packages as it does itself.
        paths = [env.get("PYTHONPATH", str(self.library)), *view.packages()]
        order = {
            "folder": str(folder),
            "visible": self._visible,
            "uid": uid,
            "as_root": os.getuid() == 0,
            "without": sorted(self.without),
            "limits": asdict(self.limits),
            "env": {"HOME": home, "TMPDIR": home} | env | {"PYTHONPATH": os.pathsep.join(paths)},
            "rehearsal": rehearsal,
        }
        with self._lock:
            self._numbers += 1
            number = self._numbers
            limit = self.limits.cpu_seconds
            self._kernels[number] = JailedKernel(number, uid, lease, group, limit, self._send, self._listen)
        try:
            self._send({"do": "spawn", "number": number, "order": order}, [ready, *descriptors])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return self._kernels[number]

    def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        if self._channel is None:
            raise JailError("the jail is closed. Start another one.")
        socket.send_fds(self._channel, [json.dumps(message).encode()], descriptors)

    def _listen(self, timeout: float | None) -> None:
        """Take note of kernels that have ended; waits so long for the first one."""
        if self._channel is not None:
            select.select([self._channel], [], [], timeout)
        with self._lock:
            while self._channel is not None and select.select([self._channel], [], [], 0)[0]:
                message = self._channel.recv(CAP)
                if not message:  # the parent has died, and with it every kernel
                    self.close()
                    return
                said = json.loads(message)
                self._kernels.pop(said["number"]).ended(said["status"], said["cpu_seconds"])

    def _greet(self) -> dict[str, Any]:
        assert self._channel is not None
        settings = {"library": str(self.library), "packages": view.packages(), "imports": self._imports}
        self._channel.settimeout(_START_SECONDS)
        try:
            self._channel.send(json.dumps(settings).encode())
            answer = json.loads(self._channel.recv(CAP) or b"{}")
        except OSError:  # it has ended already
            return {}
        self._channel.settimeout(None)
        return dict(answer)


def _refusal(what: str) -> str:
    return f"{what}. Run `course doctor` to see which layer is missing. Nothing was graded."

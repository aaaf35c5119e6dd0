"""The warm parent: imports what notebooks need once, then forks a jailed kernel for each request."""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from autograder.jail.inside import kernel, linux, root
from autograder.jail.inside.confine import Order, confine, separate

CAP = 1 << 16  # the longest message, either way
_PATIENCE = 6.0  # seconds for threads of imports to end
IMPORTS = (
    "torch",
    # PyTorch loads it at the first optimizer, derivative by `torch.func`, comparison by `torch.testing`, checkpoint or
    # profile: a second or more of each kernel's time, and ten while other kernels are busy.
    "torch._dynamo",
    "numpy.random",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "IPython",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.debugger",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.extensions.storemagic",
    "tornado.platform.asyncio",
    "tornado.queues",
    "safetensors.torch",
)


def main(channel: int) -> None:
    """Serve the host over the socket with this number, until the host closes it."""
    host = socket.socket(fileno=channel)
    settings = json.loads(host.recv(CAP))
    try:
        prepare(settings)
    except BaseException as error:
        _tell(host, error=f"{type(error).__name__}: {error}")
        os._exit(1)
    _tell(host, ready=True)
    order, ready = Server(host).serve()
    # From here on this is the forked process of one kernel.
    try:
        confine(order)
        os.environ.update(order.env)
        if order.rehearsal:
            unreadable = [path for path in order.visible if not os.access(path, os.R_OK)]
            if unreadable and order.has("files"):
                raise PermissionError(f"{unreadable[0]} cannot be read by other users: `chmod -R a+rX {unreadable[0]}`")
            os.write(ready, b"ready")
            os._exit(0)
        kernel.start(f"{order.folder}/kernel.json", ready)
    except Exception as error:
        _fail(ready, error)
    os._exit(0)


def prepare(settings: dict[str, Any]) -> None:
    """Import everything, on one thread, and make sure that none is left running."""
    sys.path[:] = [settings["library"], *(path for path in sys.path if path != sys.path[0]), *settings["packages"]]
    for name in [name for name in sys.modules if name.partition(".")[0] == "autograder"]:
        del sys.modules[name]  # what runs here goes on; the name is the library's
    for name in settings["imports"]:
        importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    _await_single_thread()
    gc.freeze()  # keeps the pages of what is imported shared with the kernels


def _await_single_thread() -> None:
    deadline = time.monotonic() + _PATIENCE
    while len(list(Path("/proc/self/task").iterdir())) > 1:  # a timer of matplotlib's may be on its way out
        if time.monotonic() > deadline:
            names = ", ".join(thread.name for thread in threading.enumerate()[1:])
            raise RuntimeError(f"an import has started a thread that does not end ({names}); a fork would break it")
        time.sleep(0.01)


class Server:
    """Answers the host's requests; knows its kernels by number."""

    def __init__(self, host: socket.socket) -> None:
        """Listen to this socket and to the ends of kernels."""
        self.host = host
        self.kernels: dict[int, int] = {}  # process id -> number
        self.woken, self.waker = os.pipe()
        os.set_blocking(self.waker, False)
        os.set_blocking(self.woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(host, selectors.EVENT_READ)
        self.selector.register(self.woken, selectors.EVENT_READ)

    def serve(self) -> tuple[Order, int]:
        """Serve for ever; returns only in the process that is to become a kernel."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.host:
                    forked = self.answer()
                    if forked:
                        self.leave()
                        return forked
                else:
                    self.reap()

    def answer(self) -> tuple[Order, int] | None:
        """Do what the host asks for."""
        message, descriptors, _, _ = socket.recv_fds(self.host, CAP, 8)
        if not message:  # the host is gone or has closed
            os._exit(0)
        request = json.loads(message)
        if request["do"] == "spawn":
            ready, *cgroups = descriptors
            order = Order(**request["order"])
            if self.spawn(request["number"], order, ready, cgroups):
                return order, ready
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            for pid, number in self.kernels.items():
                if number == request["number"]:
                    os.kill(pid, request["signal"])
        return None

    def spawn(self, number: int, order: Order, ready: int, cgroups: list[int]) -> bool:
        """Fork a kernel's process by way of a go-between, which enters the namespaces; True in the new process."""
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            try:
                for descriptor in cgroups:
                    os.write(descriptor, b"0")
                    os.close(descriptor)
                separate(order)
                bound, binder = os.pipe()
                pid = os.fork()
                if pid:
                    os.write(writer, str(pid).encode())
                    os.close(writer)
                    os.close(binder)
                    _pass_on(order, bound, ready)
            except BaseException as error:
                _fail(ready, error)
            os.dup2(binder, ready)
            for descriptor in (reader, writer, bound, binder):
                os.close(descriptor)
            return True
        os.close(writer)
        pid = int(os.read(reader, 32) or 0)
        os.close(reader)
        if pid:
            self.kernels[pid] = number
        else:
            _tell(self.host, number=number, status=1, cpu_seconds=0)
        return False

    def reap(self) -> None:
        """Tell the host which kernels have ended, and how."""
        with suppress(BlockingIOError):
            os.read(self.woken, 4096)
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self.kernels:
                seconds = used.ru_utime + used.ru_stime
                code = os.waitstatus_to_exitcode(status)
                _tell(self.host, number=self.kernels.pop(pid), status=code, cpu_seconds=seconds)

    def leave(self) -> None:
        """Give up, in a kernel's process, all that belongs to the parent."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.selector.close()
        self.host.close()
        os.close(self.woken)
        os.close(self.waker)


def _tell(host: socket.socket, **message: object) -> None:
    host.send(json.dumps(message).encode()[:CAP])


def _fail(ready: int, error: BaseException) -> None:
    os.write(ready, f"{type(error).__name__}: {error}".encode()[:4096])
    os._exit(1)


def _pass_on(order: Order, bound: int, ready: int) -> None:
    """Wait for the kernel's sockets, take away its right to write beside them, and tell the host; never returns."""
    said = os.read(bound, 4096)
    if said == b"ready" and order.has("files"):
        root.close_folder(order.folder)
    os.write(ready, said)
    os._exit(0)

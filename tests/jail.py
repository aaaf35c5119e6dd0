"""What the tests of the jail share: kernels without torch, which start fast, and a client to talk to them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from autograder.jail import JailedKernel, Limits, WarmJail
from autograder.jail.layers import NAMES, probe

PRESENT = {status.layer.name: status.present for status in probe()}
LIGHT = ("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.debugger", "numpy.random")
SMALL = Limits(memory=200 << 20, processes=64, file_size=1 << 20, tmp=16 << 20, cpu_seconds=2)


@contextmanager
def light_jail(
    library: Path, keep: frozenset[str] = NAMES, limits: Limits = SMALL, folders: Path | None = None
) -> Iterator[WarmJail]:
    """A started jail that has only the layers `keep`."""
    jail = WarmJail(library, limits, NAMES - keep, folders=folders, imports=LIGHT)
    jail.start()
    try:
        yield jail
    finally:
        jail.close()


@contextmanager
def light_jails(library: Path) -> Iterator[Callable[[frozenset[str]], WarmJail]]:
    """Gives a started jail with the layers that it is asked for, the same one when it is asked again."""
    library.chmod(0o755)
    started: dict[frozenset[str], WarmJail] = {}
    with ExitStack() as stack:

        def jail(keep: frozenset[str]) -> WarmJail:
            if keep not in started:
                started[keep] = stack.enter_context(light_jail(library, keep))
            return started[keep]

        yield jail


class Cell:
    """A kernel in a jail, into which a test types."""

    def __init__(self, kernel: JailedKernel, client: BlockingKernelClient) -> None:
        """Talk to this kernel."""
        self.kernel = kernel
        self.client = client

    def run(self, code: str) -> str:
        """What the code prints, then the name of what it raises, or "dead" when the kernel dies of it."""
        return self.finish(self.client.execute(code, allow_stdin=False))

    def finish(self, number: str) -> str:
        """Wait for the end of a request; returns what `run` does."""
        said = ""
        while True:
            message = self._hear(number)
            if message is None:
                return said + "dead"
            content = message["content"]
            if content.get("execution_state") == "idle":
                return said.strip()
            said += content.get("text", "") + content.get("ename", "")

    def start(self, code: str) -> str:
        """Begin to execute code; returns when it has printed something, with what `finish` takes."""
        number = self.client.execute(code, allow_stdin=False)
        while (message := self._hear(number)) is not None:
            if "text" in message["content"]:
                return str(number)
        raise AssertionError("the kernel has died")

    def _hear(self, number: str) -> dict[str, Any] | None:
        """The kernel's next message about a request; None when it is dead."""
        while self.kernel.poll() is None:
            try:
                message: dict[str, Any] = self.client.get_iopub_msg(timeout=0.1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") == number:
                return message
        return None


@contextmanager
def cell(jail: WarmJail, env: dict[str, str] | None = None) -> Iterator[Cell]:
    """A new kernel in the jail, killed at the end."""
    with tempfile.TemporaryDirectory(prefix="g", dir=jail.folders) as folder:
        place = Path(folder, "kernel.json")
        write_connection_file(str(place), transport="ipc", ip=f"{folder}/k", **ports())
        client = BlockingKernelClient(connection_file=str(place))
        client.load_connection_file()
        kernel = jail.spawn(Path(folder), {"FOLDER": folder} | (env or {}))
        client.start_channels()
        try:
            client.wait_for_ready(timeout=30)
            yield Cell(kernel, client)
        finally:
            client.stop_channels()
            kernel.kill()
            kernel.wait(30)


def ports() -> dict[str, int]:
    """The numbers that tell a kernel's sockets apart."""
    return {f"{name}_port": number for number, name in enumerate(("shell", "iopub", "stdin", "hb", "control"), 1)}


def namespace(pid: int) -> str:
    """The name of the namespace of process ids in which a process is."""
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def outer_namespace(jail: WarmJail) -> str:
    """The namespace of the jail's warm parent."""
    [first] = Path(f"/proc/{jail.process_id}/task/{jail.process_id}/children").read_text().split()
    return namespace(int(first))


def in_namespace(name: str) -> set[int]:
    """The processes in a namespace of process ids, as the host numbers them."""
    found = set()
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with suppress(OSError):  # it has just ended, or is not ours
            if namespace(pid) == name:
                found.add(pid)
    return found


def open_channels(pid: int) -> set[str]:
    """The pipes and sockets that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith(("pipe:", "socket:"))}

"""The jail as a Jupyter kernel provisioner: nbclient and jupyter_client start jailed kernels like any other."""

import asyncio
import atexit
import signal
from pathlib import Path
from typing import Any

from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Dict, Unicode

from autograder.jail.kernel import JailedKernel
from autograder.jail.parent import JailError, WarmJail

_jails: dict[Path, WarmJail] = {}


def jail_for(library: Path) -> WarmJail:
    """This process's jail for a library, started now if there is none."""
    library = library.resolve()
    jail = _jails.get(library)
    if jail is None or not jail.alive:
        jail = WarmJail(library)
        jail.start()
        use(jail)
    return jail


def use(jail: WarmJail) -> None:
    """Let kernels for this jail's library be spawned in it."""
    _jails[jail.library] = jail


@atexit.register
def close_all() -> None:
    """Close every jail of this process."""
    while _jails:
        _jails.popitem()[1].close()


class JailProvisioner(KernelProvisionerBase):
    """Spawns the kernel in this process's warm jail."""

    library = Unicode(help="The folder from which the kernel may import.", config=True)
    variables = Dict(help="Environment variables for the kernel; the grader's own are not passed on.", config=True)

    kernel: JailedKernel | None = None
    reason = ""
    """Why the last kernel ended, in a word of `JailedKernel.reason`."""

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel."""
        return self.kernel is not None

    async def poll(self) -> int | None:
        """The exit status, or None while the kernel runs."""
        return self.kernel.poll() if self.kernel else 0

    async def wait(self) -> int | None:
        """Wait until the kernel has ended."""
        status = 0
        while self.kernel:
            ended = self.kernel.poll()
            if ended is None:
                await asyncio.sleep(0.01)  # as jupyter_client's own provisioner does
                continue
            status, self.reason, self.kernel = ended, self.kernel.reason, None
        return status

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel."""
        if self.kernel:
            self.kernel.send_signal(signum)

    async def kill(self, restart: bool = False) -> None:
        """Kill the kernel with everything that it has started."""
        if self.kernel:
            self.kernel.kill()

    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel to end."""
        await self.send_signal(signal.SIGTERM)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Write the connection file."""
        manager: Any = self.parent
        if manager.transport != "ipc":
            raise JailError("A jailed kernel has no network: use AsyncKernelManager(transport='ipc').")
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork the kernel and wait until its sockets answer."""
        manager: Any = self.parent
        folder = Path(manager.connection_file).parent
        self.kernel = await asyncio.to_thread(jail_for(Path(self.library)).spawn, folder, self.variables)
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        """Nothing is left to clean up: the kernel has given everything back when it ended."""

"""Kernel managers for nbclient, with and without the jail."""

from importlib.metadata import EntryPoint
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from traitlets.config import Config

NAME = "course-jail"
_SPECS = Path(__file__).parent / "kernels"


def kernel_manager(
    library: Path, folder: Path, unsafe: bool = False, env: dict[str, str] | None = None
) -> AsyncKernelManager:
    """A manager, not started, for one kernel; hand it to nbclient as `km`.

    nbclient leaves a kernel that it was handed alive: `await manager.shutdown_kernel(now=True)` afterwards.

    Args:
        library: the folder from which the kernel imports.
        folder: private to this kernel, and short (a Unix socket's path has about 100 bytes): its connection file and
            its sockets lie there.
        unsafe: run the kernel as an ordinary process of this user, without any isolation.
        env: environment variables for the kernel.
    """
    register()
    config = Config()
    config.JailProvisioner.library = str(library)
    config.JailProvisioner.variables = env or {}
    manager = AsyncKernelManager(
        config=config,
        kernel_name="course-plain" if unsafe else NAME,
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(_SPECS)], ensure_native_kernel=False),
        connection_file=str(folder / "kernel.json"),
        transport="ipc",
        ip=str(folder / "k"),
    )
    if unsafe and manager.kernel_spec:
        manager.kernel_spec.env = {"PYTHONPATH": str(library)} | (env or {})
    return manager


def register() -> None:
    """Make the provisioner known even where the package's entry points are older than it."""
    factory = KernelProvisionerFactory.instance()
    entry = EntryPoint(NAME, "autograder.jail.provisioner:JailProvisioner", KernelProvisionerFactory.GROUP_NAME)
    factory.provisioners.setdefault(NAME, entry)

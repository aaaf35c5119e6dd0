"""The jail: submissions run in kernels that can reach nothing but their own work."""

from autograder.jail.kernel import JailedKernel
from autograder.jail.kernels import kernel_manager
from autograder.jail.layers import LAYERS, probe
from autograder.jail.limits import Limits
from autograder.jail.parent import JailError, WarmJail
from autograder.jail.provisioner import jail_for

__all__ = ["LAYERS", "JailError", "JailedKernel", "Limits", "WarmJail", "jail_for", "kernel_manager", "probe"]

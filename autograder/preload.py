"""What `autograder.workers` has ready before its processes are forked: to import it is to load every check.

Nothing computes here, and nothing may start a thread: the processes are copies of this one.
"""

import torch

torch.set_num_threads(1)

from autograder import examiner, harmless, intake  # noqa: E402, F401
from autograder.checks import register  # noqa: E402

register()

"""Loss curves for TensorBoard, which shows them while a run goes on and compares runs."""

import os
from pathlib import Path
from types import TracebackType

from course.training import Run

EVERY = 20
"""Steps whose mean is one point: single batches scatter too much to be read."""


class Curves:
    """Writes a run's losses into the folder `logs` of its output; `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, place: Path, active: bool = True) -> None:
        """Open the log.

        Args:
            place: the run's output folder.
            active: False writes nothing, as in all processes of a run but the first.
        """
        self._writer = None
        if active:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(place / "logs"))

    def __enter__(self) -> "Curves":
        """Use it in a with statement: what was written is on disk at the end, however the run ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()

    def step(self, run: Run) -> None:
        """Write the mean of the last losses and the learning rate, every so many steps."""
        step = run.progress.step
        if self._writer is not None and step % EVERY == 0:
            recent = run.progress.losses[-EVERY:]
            self._put("loss/training", sum(recent) / len(recent), step)
            self._put("learning rate", run.optimiser.param_groups[0]["lr"], step)

    def held_out(self, run: Run) -> None:
        """Write the loss on the validation split."""
        if self._writer is not None:
            self._put("loss/held-out", run.progress.held_out, run.progress.step)

    def _put(self, name: str, value: float, step: int) -> None:
        assert self._writer is not None
        self._writer.add_scalar(name, value, step)

"""A loss curve that grows while a cell trains."""

import time
from collections.abc import Mapping
from types import TracebackType

import matplotlib.pyplot as plt
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure

COLOURS = ("grey", "tab:orange", "tab:green", "tab:red")


class LiveLoss:
    """Draws the losses of a training beside their landmarks, anew every few seconds, and a last time at the end.

    with LiveLoss({"ln V": 6.2}, steps=400) as curve:
        for step in range(400):
            ...
            curve.add(loss.item())
    """

    def __init__(
        self, landmarks: Mapping[str, float], steps: int, mean_of: int = 5, seconds: float = 2.0, log: bool = False
    ) -> None:
        """Prepare an empty figure.

        Args:
            landmarks: names and losses, drawn as lines; at most four.
            steps: how many there will be, for the axis and the estimate of the time.
            mean_of: so many losses make one point.
            seconds: between two drawings.
            log: whether the loss has a logarithmic axis.

        Raises:
            ValueError: there are more landmarks than colours.
        """
        if len(landmarks) > len(COLOURS):
            raise ValueError(f"{len(landmarks)} landmarks, and at most {len(COLOURS)} can be told apart")
        self.landmarks, self.steps, self.mean_of, self.every, self.log = landmarks, steps, mean_of, seconds, log
        self.losses: list[float] = []
        self._handle: DisplayHandle | None = None
        self._started = self._drawn = time.monotonic()

    def __enter__(self) -> "LiveLoss":
        """Start the clock."""
        self._started = self._drawn = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw what there is, also of a training that was stopped."""
        self._show()

    @property
    def seconds(self) -> float:
        """Since the training began."""
        return time.monotonic() - self._started

    def add(self, loss: float) -> None:
        """Take the loss of one more step."""
        self.losses.append(loss)
        if time.monotonic() - self._drawn > self.every:
            self._show()
            self._drawn = time.monotonic()

    def draw(self) -> Figure:
        """The figure as it is now."""
        figure, axes = plt.subplots()
        whole = len(self.losses) // self.mean_of
        means = [sum(self.losses[self.mean_of * i : self.mean_of * (i + 1)]) / self.mean_of for i in range(whole)]
        axes.plot([self.mean_of * (i + 0.5) for i in range(whole)], means)
        for colour, (name, loss) in zip(COLOURS, self.landmarks.items(), strict=False):
            axes.axhline(loss, color=colour, linestyle="--", linewidth=1)
            axes.text(self.steps, loss, name, va="bottom", ha="right", fontsize=9, color=colour)
        axes.set_xlim(0, self.steps)
        if self.log:
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats a token)")
        done = len(self.losses)
        if 0 < done < self.steps:
            left = self.seconds * (self.steps - done) / done
            axes.set_title(f"step {done} of {self.steps}, about {left:.0f} s left", fontsize=10)
        return figure

    def _show(self) -> None:
        figure = self.draw()
        if self._handle is None:
            self._handle = display(figure, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(figure)  # type: ignore[no-untyped-call]
        plt.close(figure)

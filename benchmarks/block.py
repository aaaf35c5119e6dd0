"""Forward and backward of our `TransformerBlock` beside PyTorch's `nn.TransformerEncoderLayer`, time and memory."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.results import write
from course.measure import LiveTensors
from solutions.block import TransformerBlock
from solutions.config import TransformerConfig

B, T, D, H = 32, 128, 256, 8
RUNS = 15


def main() -> None:
    """Measure both, turn and turn about, and write the medians and their ratio."""
    rows = []
    for dropout in (0.0, 0.1):
        peer = nn.TransformerEncoderLayer(D, H, 4 * D, dropout, batch_first=True)
        config = TransformerConfig(vocab_size=1, d_model=D, num_heads=H, norm_first=False, dropout=dropout)
        fused = TransformerConfig(**(vars(config) | {"fused": True}))
        rows += compare(
            {
                "nn.TransformerEncoderLayer": peer,
                "TransformerBlock, fused": TransformerBlock(fused),
                "TransformerBlock, clear": TransformerBlock(config),
            },
            f"dropout {dropout}",
        )
    write(
        "block",
        what=f"One post-norm block in training mode, forward and backward, at B={B}, T={T}, D={D}, H={H}. The ratios "
        "are to nn.TransformerEncoderLayer in the same run; memory is the peak of the tensors that are alive.",
        command="python -m benchmarks.block",
        machine=f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, {platform.system()}, "
        f"{platform.machine()}",
        versions={"torch": version("torch")},
        rows=rows,
    )


def compare(modules: dict[str, nn.Module], case: str) -> list[dict[str, object]]:
    """A row for each module; the first is what the others are compared with."""
    x = torch.randn(B, T, D, generator=torch.Generator().manual_seed(0), requires_grad=True)
    steps = {name: step_of(module.train(), x) for name, module in modules.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks = {}
    for name, step in steps.items():
        with LiveTensors() as tensors:
            step()
        peaks[name] = tensors.peak_bytes
    for _ in range(RUNS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    peer = next(iter(steps))
    return [
        {
            "case": f"{name}, {case}",
            "milliseconds, median": round(1000 * statistics.median(seconds[name]), 1),
            "time ratio": round(statistics.median(seconds[name]) / statistics.median(seconds[peer]), 2),
            "peak MiB": round(peaks[name] / 2**20, 1),
            "memory ratio": round(peaks[name] / peaks[peer], 2),
            "runs": RUNS,
        }
        for name in steps
    ]


def step_of(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """One forward and backward pass that leaves no gradients behind."""

    def step() -> None:
        module(x).square().mean().backward()
        x.grad = None
        module.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()

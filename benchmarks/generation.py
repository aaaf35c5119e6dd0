"""Writing greedily with a cache, without one, and with `generate` of `transformers`: same weights, same text."""

import argparse
import copy
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from benchmarks.results import write
from solutions.generation import sample
from solutions.gpt import CausalLanguageModel
from solutions.pretrained import convert_gpt2, gpt2_config, load_weights

SIZES = {"4 layers, 128 wide": (4, 128, 4, 2048), "6 layers, 384 wide": (6, 384, 6, 2048)}
"""Layers, width, heads and vocabulary: those of docstrings-gpt, and nanoGPT's layers and width for a small GPU."""

LENGTHS = {"4 layers, 128 wide": (32, 64, 128, 256, 512), "6 layers, 384 wide": (256,)}
"""How many tokens are written."""

PROMPT = 16
CACHED, AGAIN, PEER = "with a cache", "without a cache", "generate of transformers"
TURNED = "with a cache, matrices kept as (in, out)"
"""How GPT-2 keeps those of its blocks; nn.Linear keeps (out, in). The peer's order, to see what order alone costs."""

Write = Callable[[int], Tensor]
"""Writes so many tokens behind the prompt; gives all of them, (1, T)."""


def main() -> None:
    """Measure all, turn and turn about, and write the medians and their ratio to the peer's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="Of PyTorch.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    with Progress() as progress:
        contenders = {size: writers(*SIZES[size], longest=PROMPT + max(LENGTHS[size])) for size in LENGTHS}
        turns = (options.rounds + 1) * sum(len(ways) * len(LENGTHS[size]) for size, ways in contenders.items())
        task = progress.add_task("writing", total=turns)
        for size, ways in contenders.items():
            for length in LENGTHS[size]:
                seconds = compare(ways, length, options.rounds, lambda: progress.advance(task))
                rows += table(size, length, seconds)
    write(
        "generation",
        what=f"Seconds to write tokens greedily behind a prompt of {PROMPT}: `sample` with and without a cache, and "
        "`generate` of `transformers` with its own cache, on a GPT-2 with the same random weights. The fourth way is "
        "`sample` with a cache once more, with the matrices of the blocks in memory as GPT-2 keeps them. All wrote the "
        "same tokens. The ratio is to `generate` in the same run.",
        command="python -m benchmarks.generation",
        machine=f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, {platform.system()} "
        f"{platform.machine()}",
        versions={name: version(name) for name in ("torch", "transformers")},
        rows=rows,
    )


def writers(num_layers: int, d_model: int, num_heads: int, vocab_size: int, longest: int) -> dict[str, Write]:
    """The ways to write, with one set of weights."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=num_layers, n_embd=d_model, n_head=num_heads, vocab_size=vocab_size, n_positions=longest,
        bos_token_id=None, eos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    peer: Any = GPT2LMHeadModel(config)
    peer.eval()
    ours = CausalLanguageModel(gpt2_config(config.to_dict())).eval()
    load_weights(ours, convert_gpt2(peer.state_dict()))
    turned = kept_in_out(ours)
    prompt = torch.randint(vocab_size, (PROMPT,), generator=torch.Generator().manual_seed(1))
    whole = {"attention_mask": torch.ones_like(prompt)[None], "pad_token_id": 0, "do_sample": False}
    return {
        PEER: lambda length: peer.generate(prompt[None], max_new_tokens=length, **whole),
        CACHED: lambda length: sample(ours, prompt, length, temperature=0),
        AGAIN: lambda length: sample(ours, prompt, length, temperature=0, use_cache=False),
        TURNED: lambda length: sample(turned, prompt, length, temperature=0),
    }


def kept_in_out(model: CausalLanguageModel) -> CausalLanguageModel:
    """A copy whose blocks have the same matrices, of the same shapes, in memory the other way round."""
    turned = copy.deepcopy(model)
    for layer in turned.blocks.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = layer.weight.data.T.contiguous().T
    return turned


def compare(ways: dict[str, Write], length: int, rounds: int, done: Callable[[], None]) -> dict[str, list[float]]:
    """The seconds of each way in each round; the first round is to warm up, and to see that all write the same."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    written = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            written[name] = way(length)
            taken = time.perf_counter() - start
            if turn > 0:
                seconds[name].append(taken)
            done()
        if len({tuple(ids.flatten().tolist()) for ids in written.values()}) != 1:
            raise SystemExit(f"The ways wrote different texts of {length} tokens. Nothing was recorded.")
    return seconds


def table(size: str, length: int, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """A row for each way."""
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return [
        {
            "case": f"{size}, {length} tokens, {name}",
            "model": size,
            "way": name,
            "tokens": length,
            "seconds, median": round(median, 4),
            "tokens per second": round(length / median),
            "ratio": round(median / medians[PEER], 2),
            "rounds": len(seconds[name]),
        }
        for name, median in medians.items()
    ]


if __name__ == "__main__":
    main()

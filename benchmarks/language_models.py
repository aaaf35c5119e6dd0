"""Training steps of our language models beside GPT-2 and BERT of `transformers`, and nanoGPT's model if it is there.

Ours is also measured as `course train` trains it with `--bf16`, and with `--compile` if this benchmark is given it.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from benchmarks.results import write
from solutions.bert import IGNORED, MaskedLanguageModel
from solutions.config import TransformerConfig
from solutions.gpt import CausalLanguageModel

LAYERS, HEADS, D, T, B = 4, 4, 128, 64, 12
"""The configuration that nanoGPT's README gives for a CPU."""

V = 65
"""The different characters of its text."""

STEPS, ROUNDS = 20, 15
IDS = torch.randint(V, (B, T + 1), generator=torch.Generator().manual_seed(0))
LABELS = IDS[:, :-1].masked_fill(torch.rand(B, T, generator=torch.Generator().manual_seed(1)) > 0.15, IGNORED)
Model = tuple[nn.Module, Callable[[], Tensor]]
"""A model, and what gives its loss."""


def main() -> None:
    """Measure all, turn and turn about, and write the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="A checkout of nanoGPT: its model file is measured too.")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="Of PyTorch; all cores by default.")
    parser.add_argument("--compile", action="store_true", help="Also by torch.compile, which needs a C++ compiler.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    causal = {"transformers' GPT-2": gpt2(), "CausalLanguageModel": ours(CausalLanguageModel, causal_loss)}
    causal["CausalLanguageModel, bfloat16"] = bf16(ours(CausalLanguageModel, causal_loss))
    if options.compile:
        compiled = ours(CausalLanguageModel, causal_loss)
        compiled[0].compile()
        causal["CausalLanguageModel, torch.compile"] = compiled
    if options.nanogpt:
        causal["nanoGPT's GPT"] = nanogpt(options.nanogpt)
    masked = {"transformers' BERT": bert(), "MaskedLanguageModel": ours(MaskedLanguageModel, masked_loss)}
    rows = compare("next token", causal) + compare("masked", masked)
    write(
        "language_models",
        what=f"Training steps (loss, gradients, clipping, AdamW) of models with {LAYERS} layers, {HEADS} heads, width "
        f"{D}, context {T} and batch {B}, without dropout, in float32 where nothing else is said. The ratio is to the "
        "first of each kind in the same run.",
        command="python -m benchmarks.language_models",
        machine=f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, {platform.system()} "
        f"{platform.machine()}",
        versions={name: version(name) for name in ("torch", "transformers")},
        rows=rows,
    )


def ours(kind: Any, loss: Callable[[Any], Tensor]) -> Model:
    """One of our models with GPT-2's or BERT's choices."""
    is_causal = kind is CausalLanguageModel
    model = kind(
        TransformerConfig(
            vocab_size=V, d_model=D, num_heads=HEADS, num_layers=LAYERS, max_length=T, positions="learned",
            feed_forward="gelu_tanh" if is_causal else "gelu", norm_first=is_causal, scale_embeddings=False, fused=True,
        )
    )  # fmt: skip
    return model, lambda: loss(model)


def bf16(model: Model) -> Model:
    """The same model with its products in bfloat16."""

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model[1]()

    return model[0], loss


def causal_loss(model: nn.Module) -> Tensor:
    """The mean over all places."""
    return functional.cross_entropy(model(IDS[:, :-1]).flatten(0, 1), IDS[:, 1:].flatten())


def masked_loss(model: nn.Module) -> Tensor:
    """The mean over the chosen places, to which alone our head is applied."""
    chosen = LABELS != IGNORED
    return functional.cross_entropy(model(IDS[:, :-1], chosen=chosen), LABELS[chosen])


def gpt2() -> Model:
    """The peer of the causal model; its loss is worked out from its logits as ours is."""
    config = GPT2Config(
        vocab_size=V, n_positions=T, n_embd=D, n_layer=LAYERS, n_head=HEADS, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    return model, lambda: causal_loss(lambda ids: model(ids).logits)  # type: ignore[arg-type]


def bert() -> Model:
    """The peer of the masked model, with its own loss."""
    config = BertConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=4 * D,
        max_position_embeddings=T, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
    )  # fmt: skip
    model = BertForMaskedLM(config)
    return model, lambda: model(IDS[:, :-1], labels=LABELS).loss


def nanogpt(folder: Path) -> Model:
    """The model file of a checkout of nanoGPT."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    if spec is None or spec.loader is None or not (folder / "model.py").exists():
        sys.exit(f"{folder} is no checkout of nanoGPT: it has no model.py. Nothing was measured.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    config = module.GPTConfig(
        block_size=T, vocab_size=V, n_layer=LAYERS, n_head=HEADS, n_embd=D, dropout=0.0, bias=True
    )
    model = module.GPT(config)
    return model, lambda: model(IDS[:, :-1], IDS[:, 1:].contiguous())[1]


def compare(case: str, models: dict[str, Model]) -> list[dict[str, object]]:
    """A row for each model; the first is what the others are compared with."""
    steps = {name: stepper(*model) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in track(range(ROUNDS + 1), description=case):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn > 0:  # the first is to warm up
                seconds[name].append(time.perf_counter() - start)
    speed = {name: STEPS * B * T / statistics.median(taken) for name, taken in seconds.items()}
    peer = speed[next(iter(speed))]
    return [
        {
            "case": f"{case}, {name}",
            "tokens per second, median": round(speed[name]),
            "ratio": round(speed[name] / peer, 2),
            "parameters": sum(parameter.numel() for parameter in models[name][0].parameters()),
            "rounds": ROUNDS,
        }
        for name in models
    ]


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A training step; the optimiser is PyTorch's for all."""
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


if __name__ == "__main__":
    main()

"""Causal models of several sizes on the same documentation: how the loss falls with the number of parameters."""

import argparse
import os
import platform
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import torch
from rich.progress import Progress

from benchmarks.results import write
from course import corpora
from course.recipes import RECIPES
from course.tasks import NextToken
from course.training import Options, Run, new_run

SIZES = ((24, 2), (32, 2), (48, 3), (64, 4), (96, 4), (128, 5))
"""Width and number of layers; heads are 8 wide at the least."""

STEPS, TOKENS_PER_BATCH, CONTEXT = 800, 2048, 128
BASE = RECIPES["docstrings-gpt"]


def main() -> None:
    """Train each size on the same batches, and write its loss on the validation split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = corpora.load("docstrings")
    tokenizer = BASE.tokenizer(data["train"])
    task = NextToken(data, tokenizer, CONTEXT, packed=True)
    rows = []
    with Progress() as bar:
        for width, layers in SIZES:
            shape = {"d_model": width, "num_layers": layers, "num_heads": width // 8 if width < 64 else width // 16}
            recipe = replace(
                BASE,
                task=partial(NextToken, context_length=CONTEXT, packed=True),
                config=BASE.config | shape | {"max_length": CONTEXT},
                steps=STEPS,
                tokens_per_batch=TOKENS_PER_BATCH,
            )
            run = new_run(recipe, tokenizer, task, Options(seed=options.seed))
            line = bar.add_task(f"width {width}, {layers} layers", total=STEPS)
            run.train(lambda _, line=line: bar.advance(line))  # type: ignore[misc]
            rows.append(
                {
                    "case": f"width {width}, {layers} layers",
                    "parameters": parameters(run),
                    "held-out loss": round(run.validate(), 4),
                    "minutes": round(run.progress.seconds / 60, 1),
                }
            )
    write(
        "scaling",
        what=f"Causal models on the docstrings, each trained for {STEPS} batches of {TOKENS_PER_BATCH} tokens, the "
        "same ones in the same order. Parameters are counted without the tables of tokens and positions.",
        command="python -m benchmarks.scaling",
        machine=f"{options.threads} threads of {os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        versions={name: version(name) for name in ("torch", "tokenizers")},
        rows=rows,
    )


def parameters(run: Run) -> int:
    """How many parameters the model has, its tables aside (Kaplan et al. 2020, section 2.1)."""
    named = run.model.named_parameters()
    return sum(parameter.numel() for name, parameter in named if not name.startswith(("embedding.", "output.")))


if __name__ == "__main__":
    main()

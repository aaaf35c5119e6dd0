"""What `course generate` does: a trained language model goes on with a text."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from course import checkpoints
from course.chapters import CourseError, root
from course.checkpoints import END, Checkpoint, token_id
from solutions.generation import beam_search, sample
from solutions.gpt import CausalLanguageModel


@dataclass(frozen=True)
class Choices:
    """How to write; None leaves a choice to the others.

    Args:
        num: how many texts; None means 5, or as many as there are beams if they are fewer.
        tokens: the most that are written behind the prompt.
        temperature: None means 0.8.
        top_k: None means all tokens.
        top_p: None means 0.95.
        penalty: None means 1, which is none.
        beams: how many; None means that tokens are drawn.
        seed: of what is drawn.
    """

    num: int | None = None
    tokens: int = 40
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    penalty: float | None = None
    beams: int | None = None
    seed: int = 0


def write(model: str, prompt: str, choices: Choices) -> list[str]:
    """Let a model go on with a prompt.

    Args:
        model: the name of a checkpoint that comes with the course, or a folder.
        prompt: how the texts begin; one without characters lets the model begin.
        choices: how to write.

    Returns:
        The texts, prompt included. One that did not come to its end has dots behind it.

    Raises:
        CourseError: there is no such model, or a choice is out of range; the message names it.
    """
    _check(choices)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise CourseError("--prompt has bytes that are no text in UTF-8.") from error
    trained, writer = _load(model)
    end = token_id(trained.tokenizer, END)
    ids = torch.tensor([end, *trained.tokenizer.encode(prompt).ids])
    _check_model(writer, ids, choices, model)
    rows = _beams(writer, ids, choices, end) if choices.beams else _drawn(writer, ids, choices, end)
    return [_text(trained, row, end) for row in rows.tolist()]


def models() -> list[str]:
    """The checkpoints that come with the course and can go on with a text."""
    cards = sorted((root() / "checkpoints").glob("*/card.json"))
    return [card.parent.name for card in cards if '"gpt.CausalLanguageModel"' in card.read_text("utf-8")]


def _load(name: str) -> tuple[Checkpoint, CausalLanguageModel]:
    if name not in models() and not Path(name).is_dir():
        known = ", ".join(models()) or "none"
        raise CourseError(
            f"There is no model {name!r}: it is neither a folder nor one of those that come with the course and can go "
            f"on with a text ({known})."
        )
    trained = checkpoints.load(name if name in models() else Path(name))
    if not isinstance(trained.model, CausalLanguageModel):
        raise CourseError(
            f"The model in {name} is a {trained.card['architecture']}. Only a gpt.CausalLanguageModel can go on with a "
            f"text: {', '.join(models())}."
        )
    return trained, trained.model


def _check(choices: Choices) -> None:
    """Refuse numbers that no model can do with; `not 0 < x` also refuses what is not a number."""
    beams, num = choices.beams, choices.num
    if choices.tokens < 1:
        raise CourseError(f"--tokens {choices.tokens} must be at least 1.")
    if num is not None and num < 1:
        raise CourseError(f"--num {num} must be at least 1.")
    if choices.temperature is not None and not 0 <= choices.temperature < math.inf:
        raise CourseError(f"--temperature {choices.temperature:g} must be at least 0; 0 takes the likeliest token.")
    if choices.top_k is not None and choices.top_k < 1:
        raise CourseError(f"--top-k {choices.top_k} must be at least 1.")
    if choices.top_p is not None and not 0 < choices.top_p <= 1:
        raise CourseError(f"--top-p {choices.top_p:g} must be above 0 and at most 1.")
    if choices.penalty is not None and not 1 <= choices.penalty < math.inf:
        raise CourseError(f"--penalty {choices.penalty:g} must be at least 1, which changes nothing.")
    if beams is None:
        return
    if beams < 1:
        raise CourseError(f"--beams {beams} must be at least 1.")
    if num is not None and num > beams:
        raise CourseError(f"--num {num} must be at most --beams {beams}: so many texts are found.")
    for name in ("temperature", "top_k", "top_p", "penalty"):
        if getattr(choices, name) is not None:
            option = name.replace("_", "-")
            raise CourseError(f"--beams looks for the likeliest texts and draws nothing: leave out --{option}.")


def _check_model(model: CausalLanguageModel, ids: Tensor, choices: Choices, name: str) -> None:
    size, longest = model.config.vocab_size, model.config.max_length
    if choices.top_k is not None and choices.top_k > size:
        raise CourseError(f"--top-k {choices.top_k} must be at most {size}: so many tokens does {name} know.")
    if len(ids) + choices.tokens > longest:
        room = longest - len(ids)
        advice = f"ask for at most {room} with --tokens, or shorten the prompt" if room > 0 else "shorten the prompt"
        raise CourseError(
            f"The prompt has {len(ids)} tokens, its beginning included, and --tokens {choices.tokens} more make "
            f"{len(ids) + choices.tokens}. {name} was trained on {longest} at a time and writes badly beyond: {advice}."
        )


def _drawn(model: CausalLanguageModel, ids: Tensor, choices: Choices, end: int) -> Tensor:
    return sample(
        model,
        ids,
        choices.tokens,
        temperature=0.8 if choices.temperature is None else choices.temperature,
        top_k=choices.top_k,
        top_p=0.95 if choices.top_p is None else choices.top_p,
        num_return_sequences=choices.num or 5,
        generator=torch.Generator().manual_seed(choices.seed),
        penalty=choices.penalty or 1.0,
        end_id=end,
    )


def _beams(model: CausalLanguageModel, ids: Tensor, choices: Choices, end: int) -> Tensor:
    beams = choices.beams or 1
    return beam_search(model, ids, choices.tokens, beams, end_id=end, num_return_sequences=choices.num or min(5, beams))


def _text(trained: Checkpoint, row: list[int], end: int) -> str:
    """The text of a row; its first token is the end of what would stand before it."""
    ids = row[1:]
    if end in ids:
        return str(trained.tokenizer.decode(ids[: ids.index(end)]))
    return f"{trained.tokenizer.decode(ids)} ..."

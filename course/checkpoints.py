"""Trained models as folders of safe files: `model.safetensors`, `tokenizer.json` and `card.json`; no pickle."""

import importlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from course import workspace
from course.chapters import CourseError, root
from course.files import write_whole
from solutions.config import TransformerConfig

PAD, START, END = "[PAD]", "[START]", "[END]"
CLS, SEP, MASK = "[CLS]", "[SEP]", "[MASK]"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with what is needed to use it.

    Args:
        model: in eval mode.
        tokenizer: between texts and ids.
        card: how it was made: command, seed, data, steps, minutes, loss, hardware.
    """

    model: nn.Module
    tokenizer: Tokenizer
    card: dict[str, Any]


def folder(name: str) -> Path:
    """Where a checkpoint that comes with the course lies."""
    return root() / "checkpoints" / name


def save(place: Path, model: nn.Module, tokenizer: Tokenizer, card: dict[str, Any]) -> None:
    """Write a checkpoint; weights are kept in half precision, which is half the size.

    Args:
        place: its folder.
        model: has a `config`; tensors that stand under several names are written once.
        tokenizer: between texts and ids.
        card: must name the `architecture`, as `module.Class` of `solutions`.
    """
    tensors = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.named_parameters()}
    written = card | {"config": asdict(model.config)}  # type: ignore[call-overload]
    write_whole(place / "model.safetensors", lambda path: save_file(tensors, path))
    write_whole(place / "tokenizer.json", lambda path: tokenizer.save(str(path)))
    write_whole(place / "card.json", lambda path: path.write_text(json.dumps(written, indent=1) + "\n", "utf-8"))


def load(place: str | Path, library: str = "solutions") -> Checkpoint:
    """Read a checkpoint.

    Args:
        place: the name of one that comes with the course, or a folder.
        library: the package whose classes hold the weights.

    Raises:
        CourseError: it is missing, damaged, or made for another model; the message says which.
    """
    where = place if isinstance(place, Path) else folder(place)
    for name in ("card.json", "model.safetensors", "tokenizer.json"):
        if not (where / name).exists():
            raise CourseError(
                f"There is no checkpoint in {where}: {name} is missing. Make one with `course train "
                f"{where.name} --output {where}`."
            )
    try:
        card = json.loads((where / "card.json").read_text("utf-8"))
        tensors = load_file(where / "model.safetensors")
        tokenizer = _tokenizer(where / "tokenizer.json")
        model = build(card["architecture"], TransformerConfig(**card["config"]), library)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CourseError(f"The checkpoint in {where} is damaged or of another version: {error}.") from error
    fill(model, tensors, where)
    return Checkpoint(model.eval(), tokenizer, card)


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return spelled_out(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"{path.name}: {error}") from error


def spelled_out(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, for which the name of a special token is a text like any other.

    Who writes `[END]` into a text means these five characters. The file does not keep this choice.
    """
    tokenizer.encode_special_tokens = True
    return tokenizer


def build(architecture: str, config: TransformerConfig, library: str = "solutions") -> nn.Module:
    """Make an untrained model.

    Args:
        architecture: `module.Class`, such as `transformer.EncoderDecoder`.
        config: what it is made from.
        library: the package that has the module.
    """
    name, _, symbol = architecture.rpartition(".")
    module = workspace.module(name) if library == workspace.PACKAGE else importlib.import_module(f"{library}.{name}")
    model: nn.Module = getattr(module, symbol)(config)
    return model


def fill(model: nn.Module, tensors: dict[str, Tensor], where: object) -> None:
    """Copy weights into a model by name.

    Raises:
        CourseError: a tensor is missing, left over or of another shape; the message names it.
    """
    parameters = dict(model.named_parameters())
    for name in parameters.keys() ^ tensors.keys():
        fault = "has no tensor" if name in parameters else "has a tensor that the model lacks,"
        raise CourseError(f"The checkpoint in {where} {fault} `{name}`: it was made for another model.")
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, and the model needs {tuple(parameter.shape)}"
            raise CourseError(f"In the checkpoint in {where} `{name}` has shape {shapes}.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token.

    Raises:
        CourseError: the tokenizer does not have it.
    """
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise CourseError(f"The tokenizer has no token {token}: it was made for something else.")
    return found


def encode(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Texts as ids (B, T): each ended by [END], shorter ones filled up with [PAD]."""
    return padded(rows_of(tokenizer, texts), token_id(tokenizer, PAD))


def rows_of(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """The ids of each text, ended by [END]."""
    end = token_id(tokenizer, END)
    return [[*encoding.ids, end] for encoding in tokenizer.encode_batch(texts)]


def padded(rows: list[list[int]], pad_id: int) -> Tensor:
    """Rows of ids as one tensor (B, T), shorter ones filled up with `pad_id`."""
    longest = max(map(len, rows))
    return torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])


def decode(tokenizer: Tokenizer, ids: Tensor) -> list[str]:
    """Ids (B, T) as texts, each row up to its first [END]."""
    end = token_id(tokenizer, END)
    rows = [row[: row.index(end)] if end in row else row for row in ids.tolist()]
    texts: list[str] = tokenizer.decode_batch(rows)
    return texts

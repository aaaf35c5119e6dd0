"""Fine-tuning: a pretrained encoder under a small new layer, and how its answers are judged."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from solutions.bert import MaskedLanguageModel


class SequenceClassifier(nn.Module):
    """Says to which class a text belongs: one vector for the text, and a linear layer (Devlin et al. 2019, section 4).

    pooling "cls": the vector of the first token, which pretraining puts before every text
    pooling "mean": the mean of the vectors of all real tokens (Reimers and Gurevych 2019, section 3)
    """

    def __init__(
        self,
        encoder: MaskedLanguageModel,
        num_classes: int,
        pooling: Literal["cls", "mean"] = "cls",
        dropout: float = 0.0,
    ) -> None:
        """Keep the encoder as `encoder`, and make the linear layer `output`.

        Args:
            encoder: its encode(ids) gives (B, T, D); its config has d_model and pad_id.
            num_classes: C
            pooling: which vector stands for the text.
            dropout: the probability with which a component of that vector is dropped in training.

        Raises:
            ValueError: there is no such pooling.
        """
        super().__init__()
        if pooling not in ("cls", "mean"):
            raise ValueError(f"pooling must be 'cls' or 'mean', not {pooling!r}")
        self.encoder = encoder
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(encoder.config.d_model, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Score every class.

        Args:
            ids: integers (B, T), shorter texts filled up with the config's pad_id. The mean of no token is zero.

        Returns:
            logits (B, C); padding does not change them.
        """
        x = self.encoder.encode(ids)
        if self.pooling == "cls":
            pooled = x[:, 0]
        else:
            pad_id = self.encoder.config.pad_id
            real = torch.ones_like(ids, dtype=torch.bool) if pad_id is None else ids != pad_id
            pooled = x.masked_fill(~real.unsqueeze(-1), 0.0).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return self.output(self.dropout(pooled))


class TokenClassifier(nn.Module):
    """Says to which class each token belongs: a linear layer above an encoder (Devlin et al. 2019, section 4).

    With two classes, whose logits are read as those of a start and of an end, it finds spans.
    """

    def __init__(self, encoder: MaskedLanguageModel, num_classes: int, dropout: float = 0.0) -> None:
        """Keep the encoder as `encoder`, and make the linear layer `output`.

        Args:
            encoder: its encode(ids) gives (B, T, D); its config has d_model.
            num_classes: C
            dropout: the probability with which a component of a token's vector is dropped in training.
        """
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(encoder.config.d_model, num_classes)

    def forward(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """Score every class at every place.

        Args:
            ids: integers (B, T)
            segments: 0 or 1 for each place (B, T); None means all 0.

        Returns:
            logits (B, T, C)
        """
        return self.output(self.dropout(self.encoder.encode(ids, segments)))


def freeze(model: nn.Module, keep: Sequence[str] = ()) -> tuple[int, int]:
    """Let only some parts of a model learn.

    Args:
        model: its parameters' requires_grad is set, True or False.
        keep: names of the modules or parameters that go on learning, such as "output" or "encoder.blocks.2". A
            parameter that has several names, as a tied table, goes on learning if one of them is kept.

    Returns:
        How many numbers go on learning, and how many are frozen; each is counted once.

    Raises:
        ValueError: nothing in the model has one of the names.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for kept in keep:
        if not any(name == kept or name.startswith(kept + ".") for name in names):
            raise ValueError(f"keep has {kept!r}, and the model has no parameter of that name or within it")
    model.requires_grad_(False)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if any(name == kept or name.startswith(kept + ".") for kept in keep):
            parameter.requires_grad_(True)
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return learning, sum(parameter.numel() for parameter in model.parameters()) - learning


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Weigh each class so that all of them together count alike in the loss, however rare.

    w_c = n / (C * n_c),  n_c the number of the n labels that are c      (King and Zeng 2001, section 4.2)

    Args:
        labels: integers (n,), from 0 to C - 1.
        num_classes: C

    Returns:
        float32 (C,); over the labels, the weights have the mean 1.

    Raises:
        ValueError: a label is out of range, or a class has no label; the message names it.
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels run from {int(labels.min())} to {int(labels.max())}, not 0 to {num_classes - 1}")
    counts = torch.bincount(labels, minlength=num_classes)
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(f"class {missing[0]} has no label among the {len(labels)}: no weight makes up for that")
    return len(labels) / (num_classes * counts)


def precision_recall_f1(
    targets: Tensor, predictions: Tensor, num_classes: int, average: Literal["macro", "micro"] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Judge classes, not just answers: precision, recall and their harmonic mean (van Rijsbergen 1979, chapter 7).

    precision = right / predicted,  recall = right / there,  F1 = 2 right / (predicted + there)

    For a class c: right is how often c was predicted and true, predicted how often it was predicted, there how often
    it was true. A share of nothing, 0 / 0, is 0.

    Args:
        targets: integers of any shape, from 0 to C - 1: what is true.
        predictions: the same shape: what was answered.
        num_classes: C
        average: None gives three numbers for each class; "macro" the mean of each over the classes; "micro" counts
            right, predicted and there over all classes first.

    Returns:
        precision, recall and F1, each float32 (C,), or () for an average.

    Raises:
        ValueError: the shapes differ, a number is out of range, or there is no such average.
    """
    if targets.shape != predictions.shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, predictions {tuple(predictions.shape)}")
    if average not in (None, "macro", "micro"):
        raise ValueError(f"average must be None, 'macro' or 'micro', not {average!r}")
    for name, values in (("targets", targets), ("predictions", predictions)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(f"{name} run from {int(values.min())} to {int(values.max())}, not 0 to {num_classes - 1}")
    there, predicted, right = (
        torch.bincount(chosen.flatten(), minlength=num_classes)
        for chosen in (targets, predictions, targets[targets == predictions])
    )
    if average == "micro":
        there, predicted, right = there.sum(), predicted.sum(), right.sum()
    shares = ((right, predicted), (right, there), (2 * right, predicted + there))
    scores = (part / whole.clamp(min=1) for part, whole in shares)  # where the whole is 0, so is the part
    precision, recall, f1 = (score.mean() if average == "macro" else score for score in scores)
    return precision, recall, f1


def align_labels(labels: Sequence[int], word_ids: Sequence[int | None], ignore_index: int = -100) -> list[int]:
    """Give the labels of words to the tokens that the words were cut into (Devlin et al. 2019, section 5.3).

    Args:
        labels: one for each word.
        word_ids: for each token, the number of its word from 0, or None where it belongs to no word, as [CLS] does.
        ignore_index: the label of tokens that are not learned.

    Returns:
        One label for each token: the first token of a word has the word's, every other token ignore_index.

    Raises:
        ValueError: a token's word is below 0 or has no label.
    """
    aligned = []
    before = None
    for word in word_ids:
        if word is not None and not 0 <= word < len(labels):
            raise ValueError(f"word_ids name the word {word}, and there are labels for words 0 to {len(labels) - 1}")
        aligned.append(ignore_index if word is None or word == before else labels[word])
        before = word
    return aligned


def best_span(start_logits: Tensor, end_logits: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
    """Find the most likely answer: the span whose start and end have the largest sum (Devlin et al. 2019, section 4.2).

    Args:
        start_logits: (..., T), how well each place begins the answer.
        end_logits: (..., T), how well each place ends it.
        max_length: the most tokens of an answer, at least 1.

    Returns:
        start and end, integers (...), both places included, so that start <= end < start + max_length. Of equally
        good spans the one that starts first, and of these the shortest.

    Raises:
        ValueError: the shapes differ, there is no place, or max_length is below 1.
    """
    if start_logits.shape != end_logits.shape or start_logits.size(-1) == 0:
        raise ValueError(
            f"start_logits have shape {tuple(start_logits.shape)}, end_logits {tuple(end_logits.shape)}: they must "
            "have the same, with at least one place"
        )
    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1")
    length = start_logits.size(-1)
    scores = start_logits.unsqueeze(-1) + end_logits.unsqueeze(-2)  # (..., start, end)
    allowed = torch.ones_like(scores, dtype=torch.bool).triu().tril(max_length - 1)
    best = scores.masked_fill(~allowed, float("-inf")).flatten(-2).argmax(-1)
    return best // length, best % length

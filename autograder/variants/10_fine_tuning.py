"""Correct solutions of chapter 10 in other styles and by other algorithms."""

import itertools
from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autograder.checks import variant


@variant("finetuning.SequenceClassifier", "weights of the mean as a product")
class ClassifierByProduct(nn.Module):
    def __init__(self, encoder, num_classes, pooling="cls", dropout=0.0):
        super().__init__()
        if pooling not in {"cls", "mean"}:
            raise ValueError(f"no such pooling: {pooling}")
        self.encoder, self.pooling = encoder, pooling
        self.output = nn.Linear(encoder.config.d_model, num_classes)
        self.drop = nn.Dropout(dropout)

    def weights(self, ids):
        if self.pooling == "cls":
            return functional.one_hot(torch.zeros(len(ids), dtype=torch.long), ids.size(1)).float()
        pad_id = self.encoder.config.pad_id
        real = torch.ones_like(ids).float() if pad_id is None else (ids != pad_id).float()
        return real / real.sum(dim=1, keepdim=True).clamp(min=1)

    def forward(self, ids):
        pooled = torch.einsum("bt,btd->bd", self.weights(ids), self.encoder.encode(ids))
        return self.output(self.drop(pooled))


@variant("finetuning.SequenceClassifier", "a quotient of two means")
class ClassifierByMeans(nn.Module):
    def __init__(self, encoder, num_classes, pooling="cls", dropout=0.0):
        super().__init__()
        if pooling != "cls" and pooling != "mean":
            raise ValueError("pooling: cls or mean")
        self.encoder, self.by_mean = encoder, pooling == "mean"
        self.drop = nn.Dropout(dropout)
        self.output = nn.Linear(encoder.config.d_model, num_classes)

    def forward(self, ids):
        x = self.encoder.encode(ids)
        if not self.by_mean:
            return self.output(self.drop(x[:, 0]))
        pad_id = self.encoder.config.pad_id
        real = (ids == ids if pad_id is None else ids != pad_id).float()
        share = real / ids.size(1) / real.mean(1, keepdim=True).clamp(min=1e-9)
        return self.output(self.drop((share.unsqueeze(-1) * x).sum(dim=1)))


@variant("finetuning.SequenceClassifier", "a method for each pooling, dropout as a function")
class ClassifierByMethods(nn.Module):
    def __init__(self, encoder, num_classes, pooling="cls", dropout=0.0):
        super().__init__()
        poolings = {"cls": self.first, "mean": self.average}
        if pooling not in poolings:
            raise ValueError("pooling is 'cls' or 'mean'")
        self.pool = poolings[pooling]
        self.p = dropout
        self.encoder = encoder
        self.output = nn.Linear(in_features=encoder.config.d_model, out_features=num_classes)

    def first(self, x, ids):
        return x.select(1, 0)

    def average(self, x, ids):
        if self.encoder.config.pad_id is None:
            return x.mean(dim=1)
        real = ids.ne(self.encoder.config.pad_id)[:, :, None]
        count = real.sum(dim=1)
        total = torch.where(real, x, torch.zeros_like(x)).sum(dim=1)
        return torch.where(count > 0, total / torch.where(count > 0, count, 1), torch.zeros_like(total))

    def forward(self, ids):
        pooled = self.pool(self.encoder.encode(ids), ids)
        return self.output(functional.dropout(pooled, self.p, training=self.training))


@variant("finetuning.SequenceClassifier", "text by text")
class ClassifierTextByText(nn.Module):
    def __init__(self, encoder, num_classes, pooling="cls", dropout=0.0):
        if pooling != "cls" and pooling != "mean":
            raise ValueError(pooling)
        super().__init__()
        self.mean = pooling == "mean"
        self.encoder = encoder
        self.output = nn.Linear(encoder.config.d_model, num_classes)
        self.dropout = nn.Dropout(p=dropout)

    def forward(self, ids):
        rows = []
        for row, x in zip(ids, self.encoder.encode(ids), strict=True):
            if not self.mean:
                rows.append(x[0])
                continue
            pad_id = self.encoder.config.pad_id
            kept = x if pad_id is None else x[row != pad_id]
            rows.append(kept.mean(0) if len(kept) else x.new_zeros(x.size(1)))
        return self.output(self.dropout(torch.stack(rows)))


@variant("finetuning.freeze", "parameters gathered by identity")
def freeze_by_identity(model, keep=()):
    named = list(model.named_parameters(remove_duplicate=False))
    kept = {}
    for wanted in keep:
        found = [p for name, p in named if f"{name}.".startswith(f"{wanted}.")]
        if not found:
            raise ValueError(f"nothing is called {wanted}")
        kept.update((id(p), p) for p in found)
    counts = [0, 0]
    for parameter in {id(p): p for _, p in named}.values():
        parameter.requires_grad = id(parameter) in kept
        counts[not parameter.requires_grad] += parameter.numel()
    return counts[0], counts[1]


@variant("finetuning.freeze", "modules and parameters looked up by name")
def freeze_by_lookup(model, keep=()):
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    learning = []
    for name in keep:
        if name in parameters:
            learning.append(parameters[name])
        elif name in modules and next(modules[name].parameters(), None) is not None:
            learning.extend(modules[name].parameters())
        else:
            raise ValueError(f"the model has no {name}")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    every = list(model.parameters())
    on = sum(p.numel() for p in every if p.requires_grad)
    off = sum(p.numel() for p in every if not p.requires_grad)
    return on, off


@variant("finetuning.freeze", "names cut at the dots")
def freeze_by_words(model, keep=()):
    names = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name.split("."))
    wanted = [name.split(".") for name in keep]

    def covers(words, of):
        return of[: len(words)] == words

    for words in wanted:
        if not any(covers(words, of) for some in names.values() for of in some):
            raise ValueError(f"{'.'.join(words)} names nothing")
    learning = frozen = 0
    for parameter, some in names.items():
        on = any(covers(words, of) for words in wanted for of in some)
        parameter.requires_grad_(on)
        learning, frozen = learning + on * parameter.numel(), frozen + (not on) * parameter.numel()
    return learning, frozen


@variant("finetuning.class_weights", "a Counter")
def weights_by_counter(labels, num_classes):
    counts = Counter(labels.tolist())
    if set(counts) != set(range(num_classes)):
        lacking = sorted(set(range(num_classes)) - set(counts))
        raise ValueError(
            f"classes without a label: {lacking}; labels that are no class: {set(counts) - set(range(num_classes))}"
        )
    return torch.tensor(
        [len(labels) / num_classes / counts[label] for label in range(num_classes)], dtype=torch.float32
    )


@variant("finetuning.class_weights", "one-hot columns")
def weights_by_columns(labels, num_classes):
    columns = labels.unsqueeze(1) == torch.arange(num_classes)
    if not bool(columns.any(dim=1).all()):
        raise ValueError("a label is out of range")
    if not bool(columns.any(dim=0).all()):
        raise ValueError(f"no label is {int(columns.any(dim=0).int().argmin())}")
    return 1 / (num_classes * columns.float().mean(dim=0))


@variant("finetuning.class_weights", "numpy's unique")
def weights_by_unique(labels, num_classes):
    found, counts = np.unique(labels.numpy(), return_counts=True)
    if not np.array_equal(found, np.arange(num_classes)):
        raise ValueError(f"every class needs a label, and every label a class: {set(found) ^ set(range(num_classes))}")
    return torch.from_numpy((counts.sum() / (num_classes * counts)).astype(np.float32))


@variant("finetuning.precision_recall_f1", "a table of confusion")
def scores_by_confusion(targets, predictions, num_classes, average=None):
    if targets.shape != predictions.shape:
        raise ValueError("the shapes differ")
    if average is not None and average not in ("macro", "micro"):
        raise ValueError("no such average")
    for values in (targets, predictions):
        if ((values < 0) | (values >= num_classes)).any():
            raise ValueError("there is no such class")
    table = torch.zeros(num_classes, num_classes)
    for target, prediction in zip(targets.flatten().tolist(), predictions.flatten().tolist(), strict=True):
        table[target, prediction] += 1
    right, there, predicted = table.diagonal(), table.sum(1), table.sum(0)
    if average == "micro":
        right, there, predicted = right.sum(), there.sum(), predicted.sum()

    def share(part, whole):
        return torch.where(whole > 0, part / whole, torch.zeros_like(part))

    scores = share(right, predicted), share(right, there), share(2 * right, there + predicted)
    if average == "macro":
        return scores[0].mean(), scores[1].mean(), scores[2].mean()
    return scores


@variant("finetuning.precision_recall_f1", "class by class, F1 from precision and recall")
def scores_class_by_class(targets, predictions, num_classes, average=None):
    if targets.size() != predictions.size():
        raise ValueError("targets and predictions must have the same shape")
    every = set(range(num_classes))
    if not set(targets.flatten().tolist()) | set(predictions.flatten().tolist()) <= every:
        raise ValueError("a number is out of range")
    if average not in [None, "macro", "micro"]:
        raise ValueError("average")

    def scores(true, answered):
        hit = float((true & answered).sum())
        precision = hit / float(answered.sum()) if answered.any() else 0.0
        recall = hit / float(true.sum()) if true.any() else 0.0
        both = precision + recall
        return precision, recall, 2 * precision * recall / both if both else 0.0

    if average == "micro":
        classes = torch.arange(num_classes)
        result = scores(targets[..., None] == classes, predictions[..., None] == classes)
    else:
        rows = [scores(targets == label, predictions == label) for label in range(num_classes)]
        result = [list(column) for column in zip(*rows, strict=True)]
        if average == "macro":
            result = [sum(column) / num_classes for column in result]
    return tuple(torch.tensor(one, dtype=torch.float32) for one in result)


@variant("finetuning.precision_recall_f1", "one-hot, with nan_to_num")
def scores_by_one_hot(targets, predictions, num_classes, average=None):
    if average not in (None, "macro", "micro"):
        raise ValueError(f"average={average}")
    if targets.shape != predictions.shape:
        raise ValueError("shapes")
    joined = torch.cat([targets.flatten(), predictions.flatten()])
    if len(joined) and (joined.min() < 0 or joined.max() > num_classes - 1):
        raise ValueError("out of range")
    true = functional.one_hot(targets.flatten(), num_classes).float()
    answered = functional.one_hot(predictions.flatten(), num_classes).float()
    counts = torch.stack([(true * answered).sum(0), answered.sum(0), true.sum(0)])
    if average == "micro":
        counts = counts.sum(1)
    hit, predicted, there = counts
    precision, recall = torch.nan_to_num(hit / predicted), torch.nan_to_num(hit / there)
    f1 = torch.nan_to_num(2 * precision * recall / (precision + recall))
    if average == "macro":
        precision, recall, f1 = precision.mean(), recall.mean(), f1.mean()
    return precision, recall, f1


@variant("finetuning.align_labels", "groups of one word")
def align_by_groups(labels, word_ids, ignore_index=-100):
    result = []
    for word, group in itertools.groupby(word_ids):
        count = len(list(group))
        if word is None:
            result += [ignore_index] * count
        elif word in range(len(labels)):
            result += [labels[word], *[ignore_index] * (count - 1)]
        else:
            raise ValueError(f"word {word} has no label")
    return result


@variant("finetuning.align_labels", "words seen so far")
def align_by_seen(labels, word_ids, ignore_index=-100):
    by_word = dict(enumerate(labels))
    seen, result = set(), []
    for word in word_ids:
        if word is None or word in seen:
            result.append(ignore_index)
        elif word not in by_word:
            raise ValueError(f"there is no label for word {word}")
        else:
            result.append(by_word[word])
            seen.add(word)
    return result


@variant("finetuning.align_labels", "the first place of each word")
def align_by_first_place(labels, word_ids, ignore_index=-100):
    first = {}
    for place, word in enumerate(word_ids):
        if word is not None:
            first.setdefault(word, place)
    if any(not 0 <= word < len(labels) for word in first):
        raise ValueError("a word has no label")
    result = [ignore_index] * len(word_ids)
    for word, place in first.items():
        result[place] = labels[word]
    return result


@variant("finetuning.best_span", "pair by pair")
def span_by_pairs(start_logits, end_logits, max_length):
    if start_logits.shape != end_logits.shape or 0 in start_logits.shape[-1:]:
        raise ValueError("the same shape and at least one place are needed")
    if max_length <= 0:
        raise ValueError("max_length must be positive")
    length = start_logits.shape[-1]
    starts, ends = [], []
    pairs = zip(start_logits.reshape(-1, length).tolist(), end_logits.reshape(-1, length).tolist(), strict=True)
    for start_row, end_row in pairs:
        best, place = -float("inf"), (0, 0)
        for start in range(length):
            for end in range(start, min(start + max_length, length)):
                if start_row[start] + end_row[end] > best:
                    best, place = start_row[start] + end_row[end], (start, end)
        starts.append(place[0])
        ends.append(place[1])
    shape = start_logits.shape[:-1]
    return torch.tensor(starts).reshape(shape), torch.tensor(ends).reshape(shape)


@variant("finetuning.best_span", "the best end for each start")
def span_by_best_ends(start_logits, end_logits, max_length):
    if start_logits.shape != end_logits.shape:
        raise ValueError("the shapes differ")
    if start_logits.shape[-1] < 1 or max_length < 1:
        raise ValueError("there is no span")
    padded = functional.pad(end_logits, (0, max_length - 1), value=float("-inf"))
    best_end, offset = padded.unfold(-1, max_length, 1).max(dim=-1)
    start = (start_logits + best_end).max(dim=-1).indices
    return start, start + offset.gather(-1, start.unsqueeze(-1)).squeeze(-1)


@variant("finetuning.best_span", "a list of allowed pairs")
def span_by_list(start_logits, end_logits, max_length):
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}")
    if start_logits.shape != end_logits.shape or start_logits.size(-1) == 0:
        raise ValueError("start_logits and end_logits do not fit")
    length = start_logits.size(-1)
    starts, ends = torch.tensor(
        [(start, end) for start in range(length) for end in range(start, length) if end - start < max_length]
    ).unbind(1)
    best = (start_logits[..., starts] + end_logits[..., ends]).argmax(dim=-1)
    return starts[best], ends[best]


@variant("finetuning.class_weights", "shares in float32")
def weights_by_shares(labels, num_classes):
    shares = torch.zeros(num_classes)
    for label in labels.tolist():
        if not 0 <= label < num_classes:
            raise ValueError(f"{label} is no class")
        shares[label] += 1
    if (shares == 0).any():
        raise ValueError(f"no label says {int(shares.argmin())}")
    shares /= torch.tensor(float(len(labels)))
    return torch.reciprocal(shares * torch.tensor(float(num_classes)))


@variant("finetuning.precision_recall_f1", "means of float32 tensors")
def scores_by_float_means(targets, predictions, num_classes, average=None):
    if targets.shape != predictions.shape or average not in (None, "macro", "micro"):
        raise ValueError("shapes, or average")
    both = torch.cat([targets.reshape(-1), predictions.reshape(-1)])
    if both.numel() and (both.min() < 0 or both.max() >= num_classes):
        raise ValueError("a number is out of range")
    classes = torch.arange(num_classes).unsqueeze(1)
    true, said = (targets.reshape(1, -1) == classes).float(), (predictions.reshape(1, -1) == classes).float()
    if average == "micro":
        true, said = true.reshape(1, -1), said.reshape(1, -1)
    tiny = torch.tensor(1e-12)
    hits = (true * said).sum(1)
    precision, recall = hits / torch.maximum(said.sum(1), tiny), hits / torch.maximum(true.sum(1), tiny)
    f1 = torch.tensor(2.0) * precision * recall / torch.maximum(precision + recall, tiny)
    if average == "micro":
        return precision[0], recall[0], f1[0]
    return (precision.mean(), recall.mean(), f1.mean()) if average == "macro" else (precision, recall, f1)

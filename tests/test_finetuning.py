"""Fine-tuning: the classifier and padding, what is frozen, scores against scikit-learn's, and spans by brute force."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional

from solutions.bert import MaskedLanguageModel
from solutions.config import TransformerConfig
from solutions.finetuning import (
    SequenceClassifier,
    TokenClassifier,
    align_labels,
    best_span,
    class_weights,
    freeze,
    precision_recall_f1,
)
from tests.equality import with_random_weights

V, D, PAD = 23, 12, 0


def encoder(**changes: object) -> MaskedLanguageModel:
    choices = {
        "vocab_size": V, "d_model": D, "num_heads": 3, "num_layers": 2, "d_ff": 20, "max_length": 32, "pad_id": PAD,
        "positions": "learned", "feed_forward": "gelu", "scale_embeddings": False,
    }  # fmt: skip
    return MaskedLanguageModel(TransformerConfig(**(choices | changes)))  # type: ignore[arg-type]


def classifier(pooling: Literal["cls", "mean"] = "cls", classes: int = 2, **changes: Any) -> SequenceClassifier:
    dropout = changes.pop("dropout", 0.0)
    model = SequenceClassifier(encoder(**changes), classes, pooling, dropout)
    with_random_weights(model)
    return model


def texts(seed: int, *lengths: int) -> Tensor:
    """A row for each length, filled up with padding."""
    ids = torch.randint(1, V, (len(lengths), max(*lengths, 1)), generator=torch.Generator().manual_seed(seed))
    return ids.masked_fill(torch.arange(ids.size(1)) >= torch.tensor(lengths).unsqueeze(1), PAD)


class TestSequenceClassifier:
    @given(
        st.sampled_from(["cls", "mean"]),
        st.lists(st.integers(1, 9), min_size=1, max_size=4),
        st.integers(1, 6),
        st.booleans(),
        st.integers(0, 99),
    )
    @settings(max_examples=30, deadline=None)
    def test_padding_changes_no_logits(
        self, pooling: Literal["cls", "mean"], lengths: list[int], more: int, norm_first: bool, seed: int
    ) -> None:
        model = classifier(pooling, 3, norm_first=norm_first)
        ids = texts(seed, *lengths)
        logits = model(ids)
        assert logits.shape == (len(lengths), 3)
        assert torch.allclose(model(functional.pad(ids, (0, more), value=PAD)), logits, rtol=0, atol=1e-10)
        alone = torch.cat([model(row[:length].unsqueeze(0)) for row, length in zip(ids, lengths, strict=True)])
        assert torch.allclose(alone, logits, rtol=0, atol=1e-10)

    @pytest.mark.parametrize("pooling", ["cls", "mean"])
    def test_equals_the_pooled_vector_by_hand(self, pooling: Literal["cls", "mean"]) -> None:
        model = classifier(pooling, 4)
        x = model.encoder.encode(texts(1, 6, 2, 1))
        pooled = [x[row, : length if pooling == "mean" else 1].mean(0) for row, length in enumerate((6, 2, 1))]
        assert torch.allclose(model(texts(1, 6, 2, 1)), model.output(torch.stack(pooled)), rtol=0, atol=1e-12)

    def test_without_a_pad_id_every_token_counts(self) -> None:
        model = classifier("mean", pad_id=None)
        ids = texts(2, 5, 3)
        assert torch.allclose(model(ids), model.output(model.encoder.encode(ids).mean(1)), rtol=0, atol=1e-12)

    def test_the_mean_of_no_token_is_zero(self) -> None:
        model = classifier("mean")
        logits = model(texts(3, 4, 0))
        assert torch.equal(logits[1], model.output.bias)
        logits.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)

    def test_drops_in_training_alone(self) -> None:
        model = classifier(dropout=0.5)
        ids = texts(4, 6, 4)
        assert torch.equal(model(ids), model(ids))
        model.train()
        assert not torch.equal(model(ids), model(ids))
        assert SequenceClassifier(encoder(), 2).dropout.p == 0

    @pytest.mark.parametrize("pooling", ["max", "CLS", ""])
    def test_refuses_an_unknown_pooling(self, pooling: str) -> None:
        with pytest.raises(ValueError, match="pooling must be"):
            SequenceClassifier(encoder(), 2, pooling)  # type: ignore[arg-type]


class TestTokenClassifier:
    def test_scores_each_token_whatever_the_padding(self) -> None:
        model = TokenClassifier(encoder(), 5)
        with_random_weights(model)
        ids = texts(5, 7, 4)
        segments = (torch.arange(7) >= 3).long().expand(2, 7)
        logits = model(ids, segments)
        assert logits.shape == (2, 7, 5)
        assert torch.allclose(logits, model.output(model.encoder.encode(ids, segments)), rtol=0, atol=1e-12)
        longer = model(functional.pad(ids, (0, 2), value=PAD), functional.pad(segments, (0, 2)))[:, :7]
        assert torch.allclose(longer[ids != PAD], logits[ids != PAD], rtol=0, atol=1e-10)


class TestFreeze:
    def test_only_what_is_kept_moves_in_training(self) -> None:
        model = SequenceClassifier(encoder(), 2)
        freeze(model, ["output", "encoder.blocks.1"])
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0)
        functional.cross_entropy(model(texts(6, 5, 3)), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        kept = {name for name in before if name.startswith(("output.", "encoder.blocks.1."))}
        assert moved <= kept
        assert {"output.weight", "output.bias", "encoder.blocks.1.feed_forward.up.weight"} <= moved

    def test_counts_each_number_once(self) -> None:
        model = SequenceClassifier(encoder(), 2)
        total = sum(parameter.numel() for parameter in model.parameters())
        assert freeze(model) == (0, total)
        assert freeze(model, ["output"]) == (2 * D + 2, total - 2 * D - 2)
        assert freeze(model, ["output", "encoder"]) == (total, 0)
        tied = V * D  # one table, under both of its names
        assert freeze(model, ["encoder.embedding.tokens"]) == (tied, total - tied)
        assert freeze(model, ["encoder.output.weight"]) == (tied, total - tied)
        assert freeze(model, ["encoder.embedding.tokens", "encoder.output"]) == (tied + V, total - tied - V)

    def test_names_are_whole_words(self) -> None:
        model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(11)))
        assert freeze(model, ["1"]) == (6, 60)
        assert [part.weight.requires_grad for part in model] == [place == 1 for place in range(11)]

    @pytest.mark.parametrize("keep", [["head"], ["outpu"], ["blocks.1"], ["output", "encoder.blocks.2"]])
    def test_refuses_what_the_model_has_not_and_leaves_it(self, keep: list[str]) -> None:
        model = SequenceClassifier(encoder(), 2)
        with pytest.raises(ValueError, match=f"keep has {keep[-1]!r}"):
            freeze(model, keep)
        assert all(parameter.requires_grad for parameter in model.parameters())


class TestClassWeights:
    @given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 99))
    @settings(deadline=None)
    def test_equal_the_balanced_ones_of_scikit_learn(self, counts: list[int], seed: int) -> None:
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
        weights = class_weights(labels, len(counts))
        theirs = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels.numpy())
        assert weights.dtype == torch.float32
        assert weights.numpy() == pytest.approx(theirs, rel=1e-6)
        assert weights[labels].mean().item() == pytest.approx(1.0, rel=1e-5)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 2], "class 1 has no label"),
            ([0, 1], "class 2"),
            ([0, 1, 3], "0 to 3"),
            ([-1, 0], "-1"),
            ([], "class 0"),
        ],
    )
    def test_refuses_what_cannot_be_weighed(self, labels: list[int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            class_weights(torch.tensor(labels, dtype=torch.long), 3)


class TestPrecisionRecallF1:
    @given(st.data(), st.integers(1, 5), st.sampled_from([None, "macro", "micro"]))
    @settings(max_examples=200, deadline=None)
    def test_equal_those_of_scikit_learn(
        self, data: st.DataObject, num_classes: int, average: Literal["macro", "micro"] | None
    ) -> None:
        pair = st.tuples(st.integers(0, num_classes - 1), st.integers(0, num_classes - 1))
        targets, predictions = torch.tensor(data.draw(st.lists(pair, min_size=1, max_size=30))).unbind(1)
        ours = precision_recall_f1(targets, predictions, num_classes, average)
        theirs = precision_recall_fscore_support(
            targets.numpy(), predictions.numpy(), labels=range(num_classes), average=average, zero_division=0
        )
        for score, other in zip(ours, theirs[:3], strict=True):
            assert score.dtype == torch.float32
            assert score.shape == (() if average else (num_classes,))
            assert score.numpy() == pytest.approx(other, rel=1e-6, abs=1e-7)

    def test_micro_is_the_accuracy(self) -> None:
        targets, predictions = (torch.randint(4, (5, 9), generator=torch.Generator().manual_seed(n)) for n in (1, 2))
        accuracy = (targets == predictions).float().mean()
        assert all(torch.allclose(score, accuracy) for score in precision_recall_f1(targets, predictions, 4, "micro"))

    def test_macro_f1_is_not_the_f1_of_the_means(self) -> None:
        targets, predictions = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 1, 0, 1])
        precision, recall, f1 = precision_recall_f1(targets, predictions, 2, "macro")
        assert torch.allclose(f1, precision_recall_f1(targets, predictions, 2)[2].mean())
        assert not torch.allclose(f1, 2 * precision * recall / (precision + recall))

    def test_no_answers_score_zero(self) -> None:
        none = torch.zeros(0, dtype=torch.long)
        assert all(torch.equal(score, torch.zeros(3)) for score in precision_recall_f1(none, none, 3))

    @pytest.mark.parametrize(
        ("targets", "predictions", "average", "message"),
        [
            ([0, 1], [0, 1, 1], None, "targets have shape"),
            ([0, 2], [0, 1], None, "targets run"),
            ([0, 1], [-100, 1], None, "predictions run"),
            ([0, 1], [0, 1], "weighted", "average must be"),
        ],
    )
    def test_refuses(self, targets: list[int], predictions: list[int], average: str | None, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            precision_recall_f1(torch.tensor(targets), torch.tensor(predictions), 2, average)  # type: ignore[arg-type]


class TestAlignLabels:
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3), st.integers(0, 2)), max_size=8))
    def test_each_word_is_labelled_once_and_in_order(self, words: list[tuple[int, int, int]]) -> None:
        labels = [label for label, _, _ in words]
        word_ids: list[int | None] = []
        for word, (_, pieces, gap) in enumerate(words):
            word_ids += [None] * gap + [word] * pieces
        aligned = align_labels(labels, word_ids, ignore_index=-7)
        assert len(aligned) == len(word_ids)
        assert [label for label in aligned if label != -7] == labels
        assert [word_ids.index(word) for word in range(len(words))] == [
            place for place, label in enumerate(aligned) if label != -7
        ]

    def test_an_example(self) -> None:
        assert align_labels([3, 0, 0], [None, 0, 0, 1, 2, None]) == [-100, 3, -100, 0, 0, -100]

    @pytest.mark.parametrize("word", [2, -1])
    def test_refuses_a_word_without_a_label(self, word: int) -> None:
        with pytest.raises(ValueError, match=f"the word {word}"):
            align_labels([1, 2], [0, word])


class TestBestSpan:
    @given(
        st.integers(1, 7),
        st.integers(1, 9),
        st.sampled_from([(), (1,), (3,), (2, 2)]),
        st.sampled_from([torch.float32, torch.float64]),
        st.integers(0, 10_000),
    )
    @settings(max_examples=200, deadline=None)
    def test_equals_the_best_of_all_pairs(
        self, length: int, max_length: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int
    ) -> None:
        """Whole numbers from -3 to 3: ties everywhere, and sums that are exact."""
        generator = torch.Generator().manual_seed(seed)
        starts, ends = (torch.randint(-3, 4, (*shape, length), generator=generator).to(dtype) for _ in range(2))
        found = best_span(starts, ends, max_length)
        assert all(place.shape == shape and place.dtype == torch.int64 for place in found)
        rows = zip(starts.view(-1, length), ends.view(-1, length), *(place.flatten() for place in found), strict=True)
        for start_logits, end_logits, start, end in rows:
            pairs = [(i, j) for i in range(length) for j in range(i, min(length, i + max_length))]
            best = max(
                pairs, key=lambda pair: float(start_logits[pair[0]] + end_logits[pair[1]])
            )  # the first of equals
            assert (int(start), int(end)) == best

    def test_leaves_its_inputs_alone(self) -> None:
        starts, ends = torch.arange(5.0), torch.arange(5.0, 0, -1)
        best_span(starts, ends, 2)
        assert torch.equal(starts, torch.arange(5.0))
        assert torch.equal(ends, torch.arange(5.0, 0, -1))

    @pytest.mark.parametrize(
        ("starts", "ends", "max_length", "message"),
        [
            ((5,), (4,), 2, "shape"),
            ((2, 5), (5,), 2, "shape"),
            ((0,), (0,), 2, "one place"),
            ((5,), (5,), 0, "max_length=0"),
        ],
    )
    def test_refuses(self, starts: tuple[int, ...], ends: tuple[int, ...], max_length: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            best_span(torch.zeros(starts), torch.zeros(ends), max_length)

"""Labelled examples as tensors, the loop that trains on them, and the parameters that docstrings describe."""

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.fine_tuning import TAGS, Kept, most_frequent, noisy, table, word_behind
from course import checkpoints, corpora, finetune
from course.checkpoints import CLS, PAD, SEP, Checkpoint, token_id
from course.corpora.parameters import entries_of, labelled
from solutions.bert import MaskedLanguageModel
from solutions.config import TransformerConfig
from solutions.finetuning import SequenceClassifier, TokenClassifier, freeze

SAMPLE = """Add two arrays.

Parameters
----------
x, y : array_like
    The arrays. Their shapes must agree.
axis : int or None, optional, default: None
    Axis along which to add.
order : {'C', 'F'}, default 'C'
    Order in memory.

Returns
-------
out : ndarray
    The sum.
"""


@pytest.fixture(scope="module")
def trained() -> Checkpoint:
    return checkpoints.load("docstrings-bert")


def small(seed: int = 0) -> MaskedLanguageModel:
    torch.manual_seed(seed)
    return MaskedLanguageModel(TransformerConfig(20, d_model=16, num_heads=2, num_layers=1, positions="rope", pad_id=0))


class TestParameters:
    def test_entries(self) -> None:
        entries = list(entries_of(SAMPLE))
        assert [entry.name for entry in entries] == [["x", "y"], ["axis"], ["order"]]
        assert [entry.type for entry in entries] == [["array_like"], ["int", "or", "None"], ["{'C'", "'F'}"]]
        assert [entry.default for entry in entries] == [[], ["None"], ["'C'"]]
        assert entries[0].description == ["The", "arrays"]

    def test_words_have_tags_and_owners(self) -> None:
        row = labelled(entries_of(SAMPLE))
        assert len(row["words"]) == len(row["tags"]) == len(row["entries"])
        assert row["tags"][:4] == [1, 1, 2, 0] and row["entries"][:5] == [0, 0, 0, 0, 0]
        assert not {":", ","} & set("".join(map(str, row["words"])))

    def test_a_text_without_the_section_has_none(self) -> None:
        assert list(entries_of("Return x.\n\nReturns\n-------\nx : int\n    It.\n")) == []

    def test_the_corpus(self) -> None:
        splits = corpora.load("parameters")
        assert min(map(len, splits.values())) > 50
        for row in splits["test"]:
            assert len(row["words"]) == len(row["tags"]) == len(row["entries"]) <= 60
        assert {tag for row in splits["test"] for tag in row["tags"]} == set(range(len(TAGS)))


class TestExamples:
    def test_texts_begin_and_end(self, trained: Checkpoint) -> None:
        first, last, pad = (token_id(trained.tokenizer, name) for name in (CLS, SEP, PAD))
        ids = finetune.text_ids(trained.tokenizer, ["Return the sum of the array.", "Sum"], 6)
        assert ids.shape == (2, 6) and (ids[:, 0] == first).all() and ids[0, -1] == last
        assert ids[1, (ids[1] != pad).sum() - 1] == last

    def test_the_first_token_of_a_word_has_its_tag(self, trained: Checkpoint) -> None:
        rows = [["ndimensional", "int", "dimensions"], ["x"]]
        ids, labels = finetune.tagged_ids(trained.tokenizer, rows, [[1, 2, 0], [1]], 32)
        assert ids.shape == labels.shape
        assert labels[0][labels[0] != -100].tolist() == [1, 2, 0] and labels[1][labels[1] != -100].tolist() == [1]
        pieces = trained.tokenizer.encode("ndimensional int dimensions").ids
        assert ids[0, 1 : 1 + len(pieces)].tolist() == pieces

    def test_answers_are_where_the_type_is(self, trained: Checkpoint) -> None:
        tokenizer = trained.tokenizer
        questions = finetune.type_questions(tokenizer, [labelled(entries_of(SAMPLE))], 128)
        answers = [
            tokenizer.decode(row[start : end + 1].tolist()).strip()
            for row, start, end in zip(questions.ids, questions.start.tolist(), questions.end.tolist(), strict=True)
        ]
        assert answers == ["array_like", "int or None", "{'C' 'F'}"]
        last = token_id(tokenizer, SEP)
        allowed = ~questions.outside()
        assert (allowed.gather(1, questions.start[:, None]) & allowed.gather(1, questions.end[:, None])).all()
        assert not (allowed & ((questions.ids == last) | (questions.ids == 0) | (questions.segments == 0))).any()


class TestFit:
    def test_learns_and_leaves_alone_what_is_frozen(self) -> None:
        model = SequenceClassifier(small(), 2, "mean")
        freeze(model, ["output"])
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        ids = torch.randint(2, 20, (40, 6), generator=torch.Generator().manual_seed(1))
        labels = (ids == 7).any(1).long()
        state = torch.get_rng_state()

        def loss(ids: Tensor, labels: Tensor) -> Tensor:
            return functional.cross_entropy(model(ids), labels)

        losses = finetune.fit(model, (ids, labels), loss, steps=60, learning_rate=0.1, seed=0, batch_size=16)
        assert sum(losses[-10:]) < sum(losses[:10]) and not model.training
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
        assert changed == {"output.weight", "output.bias"}
        assert torch.equal(state, torch.get_rng_state())

    def test_the_same_seed_gives_the_same_run(self) -> None:
        ids, labels = torch.randint(2, 20, (10, 5), generator=torch.Generator().manual_seed(1)), torch.arange(10) % 2
        runs = []
        for _ in range(2):
            torch.manual_seed(0)
            model = SequenceClassifier(small(), 2, "cls", dropout=0.3)
            runs.append(
                finetune.fit(
                    model, (ids, labels), lambda i, y, model=model: functional.cross_entropy(model(i), y),  # type: ignore[misc]
                    steps=5, learning_rate=1e-2, seed=3,
                )
            )  # fmt: skip
        assert runs[0] == runs[1]

    def test_weights_decide_what_is_drawn(self) -> None:
        model, seen = SequenceClassifier(small(), 2), []
        ids, numbers = torch.full((4, 3), 5), torch.arange(4)

        def loss(ids: Tensor, numbers: Tensor) -> Tensor:
            seen.extend(numbers.tolist())
            return model(ids).sum()

        finetune.fit(
            model, (ids, numbers), loss, steps=3, learning_rate=0.0, seed=0, weights=torch.tensor([0.0, 1, 0, 1])
        )
        assert Counter(seen).keys() == {1, 3}

    def test_predictions_keep_their_order(self) -> None:
        classifier, tagger = SequenceClassifier(small(), 3, "mean").eval(), TokenClassifier(small(), 3).eval()
        ids = torch.randint(2, 20, (7, 6), generator=torch.Generator().manual_seed(2))
        for row in range(7):
            ids[row, 1 + (row * 3) % 6 :] = 0
        real = ids != 0
        with torch.no_grad():
            assert torch.allclose(finetune.predict(classifier, ids, batch_size=2), classifier(ids), atol=1e-6)
            assert torch.allclose(finetune.predict(tagger, ids, batch_size=2)[real], tagger(ids)[real], atol=1e-6)


class TestBenchmark:
    def test_noise_changes_about_that_share(self) -> None:
        text = "the quick brown fox jumps over the lazy dog " * 20
        assert noisy(text, 0.0, 1) == text and noisy(text, 0.2, 1) == noisy(text, 0.2, 1) != noisy(text, 0.2, 2)
        wrong = noisy("a" * 5000, 0.2, 0)
        assert 0.15 < sum(letter != "a" for letter in wrong) / 5000 < 0.25 or len(wrong) != 5000

    def test_baselines(self) -> None:
        rows = [labelled(entries_of(SAMPLE))]
        assert word_behind(rows) == pytest.approx(1 / 3)  # x, y : array_like is one word behind both names
        truth, guesses = most_frequent(rows, rows)  # type: ignore[arg-type]
        assert (truth == guesses).float().mean() > 0.8

    def test_the_table_has_means_and_spreads(self, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = Kept("nothing")
        kept.found = {"a|0": {"accuracy": 0.5}, "a|1": {"accuracy": 0.7}, "a|9": {"accuracy": 0.0}, "b|0": {"F1": 1.0}}
        rows = list(table(kept, [0, 1, 2]))
        assert [(row["case"], row["mean"], row["runs"]) for row in rows] == [
            ("a", pytest.approx(0.6), 2),
            ("b", 1.0, 1),
        ]
        assert rows[0]["sd"] == pytest.approx(0.1414, abs=1e-4) and rows[1]["sd"] is None

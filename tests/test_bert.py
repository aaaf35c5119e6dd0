"""The masked model against BERT of `transformers`, and what its training data must be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM

from solutions.bert import IGNORED, MaskedLanguageModel, mask_tokens, masked_lm_loss, sentence_pairs
from solutions.config import TransformerConfig
from tests.equality import with_random_weights

V, D, T, PAD = 31, 12, 9, 0
DOCUMENTS = [[f"{name}{number}" for number in range(40)] for name in "abcde"]


def bert_config(**changes: object) -> TransformerConfig:
    given = {
        "vocab_size": V, "d_model": D, "num_heads": 3, "num_layers": 2, "d_ff": 20, "max_length": 16, "pad_id": PAD,
        "positions": "learned", "feed_forward": "gelu", "scale_embeddings": False, "norm_first": False,
        "norm_eps": 1e-12,
    }  # fmt: skip
    return TransformerConfig(**(given | changes))  # type: ignore[arg-type]


NAMES = {
    "embedding.tokens": "bert.embeddings.word_embeddings",
    "embedding.positions": "bert.embeddings.position_embeddings",
    "segments": "bert.embeddings.token_type_embeddings",
    "embedding_norm": "bert.embeddings.LayerNorm",
    "transform.0": "cls.predictions.transform.dense",
    "head_norm": "cls.predictions.transform.LayerNorm",
    "output": "cls.predictions.decoder",
} | {
    f"blocks.{layer}.{ours}": f"bert.encoder.layer.{layer}.{theirs}"
    for layer in range(2)
    for ours, theirs in {
        "attention.query": "attention.self.query",
        "attention.key": "attention.self.key",
        "attention.value": "attention.self.value",
        "attention.output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }.items()
}


class TestModel:
    @pytest.mark.parametrize("fused", [False, True])
    def test_equals_bert_of_transformers(self, fused: bool) -> None:
        config = BertConfig(
            vocab_size=V, hidden_size=D, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
            max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=PAD,
        )  # fmt: skip
        theirs = with_random_weights(BertForMaskedLM(config))
        ours = MaskedLanguageModel(bert_config(fused=fused)).to(torch.float64).eval()
        state = theirs.state_dict()
        for name, parameter in ours.named_parameters():
            module, _, kind = name.rpartition(".")
            parameter.data = state[f"{NAMES[module]}.{kind}"].clone()
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(1, V, (3, T), generator=generator)
        ids[1, 6:] = ids[2, 3:] = PAD
        segments = (torch.arange(T) >= 4).long().expand(3, T)
        real = ids != PAD
        found = ours(ids, segments)
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=segments)
        assert torch.allclose(found[real], expected.logits[real], rtol=0, atol=1e-9)
        labels = ids.masked_fill(~real | (torch.rand(ids.shape, generator=generator) > 0.4), IGNORED)
        other = theirs(ids, attention_mask=real.long(), token_type_ids=segments, labels=labels).loss
        assert torch.allclose(masked_lm_loss(found, labels), other, rtol=0, atol=1e-9)

    def test_padding_changes_nothing(self) -> None:
        model = with_random_weights(MaskedLanguageModel(bert_config()))
        ids = torch.randint(1, V, (2, T), generator=torch.Generator().manual_seed(2))
        longer = functional.pad(ids, (0, 3), value=PAD)
        assert torch.allclose(model(longer)[:, :T], model(ids), rtol=0, atol=1e-12)

    def test_reads_both_sides(self) -> None:
        model = with_random_weights(MaskedLanguageModel(bert_config()))
        ids = torch.randint(1, V, (1, T), generator=torch.Generator().manual_seed(3))
        for place in (0, T - 1):
            changed = ids.clone()
            changed[0, place] = ids[0, place] % (V - 1) + 1
            assert not torch.allclose(model(changed)[0, 4], model(ids)[0, 4])


class TestMasking:
    IDS = torch.randint(4, 1000, (200, 100), generator=torch.Generator().manual_seed(0))

    def test_shares_of_the_paper(self) -> None:
        ids = self.IDS
        inputs, labels = mask_tokens(ids, 3, 1000, {0, 1, 2, 3}, torch.Generator().manual_seed(1))
        chosen = labels != IGNORED
        assert torch.equal(labels[chosen], ids[chosen])
        assert torch.equal(inputs[~chosen], ids[~chosen])
        count = int(chosen.sum())
        assert count / ids.numel() == pytest.approx(0.15, abs=0.01)
        masked = (inputs == 3) & chosen
        changed = (inputs != ids) & chosen & ~masked
        assert int(masked.sum()) / count == pytest.approx(0.8, abs=0.03)
        assert int(changed.sum()) / count == pytest.approx(0.1, abs=0.02)
        drawn = inputs[changed]
        assert drawn.min() >= 4
        assert len(drawn.unique()) > 0.2 * len(drawn)

    @given(st.integers(0, 2**31), st.floats(0, 1))
    @settings(max_examples=50, deadline=None)
    def test_special_tokens_are_left_alone(self, seed: int, probability: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(8, (3, 20), generator=generator)
        before = ids.clone()
        inputs, labels = mask_tokens(ids, 7, 8, [0, 5, 7], generator, probability)
        special = (ids == 0) | (ids == 5) | (ids == 7)
        assert torch.equal(ids, before)
        assert (labels[special] == IGNORED).all()
        assert torch.equal(inputs[special], ids[special])
        put = inputs[inputs != ids]
        assert not ((put == 0) | (put == 5)).any()

    def test_one_seed_one_result(self) -> None:
        def masked(seed: int) -> torch.Tensor:
            torch.manual_seed(seed + 7)  # of no importance
            return mask_tokens(self.IDS, 3, 1000, [0], torch.Generator().manual_seed(seed))[0]

        assert torch.equal(masked(1), masked(1))
        assert not torch.equal(masked(1), masked(2))

    def test_nothing_to_draw(self) -> None:
        with pytest.raises(ValueError, match="all 3 tokens are special"):
            mask_tokens(self.IDS, 2, 3, [0, 1, 2], torch.Generator())


class TestLoss:
    def test_over_chosen_places_alone(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(2, 5, V, generator=generator, dtype=torch.float64)
        labels = torch.full((2, 5), IGNORED)
        labels[0, 2], labels[1, 4] = 7, 9
        expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        assert torch.allclose(masked_lm_loss(logits, labels), expected, rtol=0, atol=1e-12)
        assert masked_lm_loss(logits, torch.full((2, 5), IGNORED)) == 0


class TestPairs:
    def test_half_follow_and_half_come_from_elsewhere(self) -> None:
        pairs = sentence_pairs(DOCUMENTS, torch.Generator().manual_seed(0))
        assert [first for first, _, _ in pairs] == [one for document in DOCUMENTS for one in document[:-1]]
        for first, second, is_next in pairs:
            follows = f"{first[0]}{int(first[1:]) + 1}"
            assert (second == follows) if is_next else (second[0] != first[0])
        assert sum(is_next for _, _, is_next in pairs) / len(pairs) == pytest.approx(0.5, abs=0.1)
        assert len({second for _, second, is_next in pairs if not is_next}) > 50

    def test_one_seed_one_result(self) -> None:
        one, same, other = (sentence_pairs(DOCUMENTS, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert one == same != other

    @pytest.mark.parametrize("documents", [[], [["a", "b"]], [["a", "b"], []]])
    def test_nobody_to_draw_from(self, documents: list[list[str]]) -> None:
        with pytest.raises(ValueError, match="at least two documents"):
            sentence_pairs(documents, torch.Generator())

    def test_documents_of_one_sentence_give_no_pair(self) -> None:
        assert sentence_pairs([["a"], ["b"]], torch.Generator()) == []

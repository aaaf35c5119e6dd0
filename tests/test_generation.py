"""Generation against `generate` of `transformers` on the same weights, and what filters, cache and search must do."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from solutions.config import TransformerConfig
from solutions.generation import (
    KVCache,
    beam_search,
    draw,
    evaluating,
    repetition_penalty,
    sample,
    top_k_filter,
    top_p_filter,
)
from solutions.gpt import CausalLanguageModel
from solutions.pretrained import convert_gpt2, gpt2_config, load_weights
from tests.equality import normal, with_random_weights

V, NEW = 60, 40
PROMPTS = 50
Pair = tuple[GPT2LMHeadModel, CausalLanguageModel]


@pytest.fixture(scope="module")
def pair() -> Pair:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=3, n_embd=48, n_head=4, vocab_size=V, n_positions=64, bos_token_id=0, eos_token_id=0,
        initializer_range=0.3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config).eval()
    ours = CausalLanguageModel(gpt2_config(config.to_dict())).eval()
    load_weights(ours, convert_gpt2(theirs.state_dict()))
    return theirs, ours


def prompts() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for number in range(PROMPTS):
        yield torch.randint(1, V, (1 + number % 9,), generator=generator)


def generated(model: GPT2LMHeadModel, prompt: Tensor, **options: object) -> Tensor:
    row = prompt[None]
    ids = model.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=NEW, pad_token_id=0, eos_token_id=0, **options
    )
    assert isinstance(ids, Tensor)
    return ids


class TestEqualsTransformers:
    def test_greedy(self, pair: Pair) -> None:
        for prompt in prompts():
            theirs = generated(pair[0], prompt, do_sample=False)
            assert torch.equal(sample(pair[1], prompt, NEW, temperature=0, end_id=0), theirs)

    def test_greedy_with_a_penalty(self, pair: Pair) -> None:
        for prompt in prompts():
            theirs = generated(pair[0], prompt, do_sample=False, repetition_penalty=1.3)
            assert torch.equal(sample(pair[1], prompt, NEW, temperature=0, penalty=1.3, end_id=0), theirs)

    @pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, V, 1.0), (0.8, 20, 0.9), (1.5, 5, 1.0)])
    def test_sampled_from_the_same_generator(self, pair: Pair, temperature: float, top_k: int, top_p: float) -> None:
        for seed, prompt in enumerate(prompts()):
            torch.manual_seed(seed)
            theirs = generated(
                pair[0], prompt, do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p,
                num_return_sequences=3,
            )  # fmt: skip
            generator = torch.Generator().manual_seed(seed)
            ours = sample(pair[1], prompt, NEW, temperature, top_k, top_p, 3, generator, end_id=0)
            assert torch.equal(ours, theirs)

    @pytest.mark.parametrize(
        ("num_beams", "length_penalty", "count"), [(4, 1.0, 1), (4, 0.0, 3), (3, 2.0, 2), (5, 0.5, 5)]
    )
    def test_beams(self, pair: Pair, num_beams: int, length_penalty: float, count: int) -> None:
        for prompt in prompts():
            options = {"num_beams": num_beams, "length_penalty": length_penalty, "num_return_sequences": count}
            theirs = generated(pair[0], prompt, do_sample=False, **options)
            ours = beam_search(pair[1], prompt, NEW, num_beams, length_penalty, 0, count)
            assert torch.equal(ours, theirs)

    @given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.01, 0.99))
    @settings(max_examples=60, deadline=None)
    def test_filters_and_penalty(self, seed: int, k: int, p: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits, ids = normal(generator, 3, 12), torch.randint(12, (3, 5), generator=generator)
        assert torch.equal(top_k_filter(logits, k), TopKLogitsWarper(k)(ids, logits))
        assert torch.equal(top_p_filter(logits, p), TopPLogitsWarper(p)(ids, logits))
        penalised = RepetitionPenaltyLogitsProcessor(1 + p)(ids, logits.clone())
        assert torch.allclose(repetition_penalty(logits, ids, 1 + p), penalised, rtol=0, atol=1e-12)


class TestFilters:
    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.data())
    def test_what_stays_is_likelier_than_what_goes(self, levels: list[int], data: st.DataObject) -> None:
        logits = torch.tensor([levels], dtype=torch.float64)
        k = data.draw(st.integers(1, len(levels)))
        p = data.draw(st.floats(0.01, 1.0))
        for filtered in (top_k_filter(logits, k), top_p_filter(logits, p)):
            stays = torch.isfinite(filtered)
            assert stays.any() and torch.equal(filtered[stays], logits[stays])
            assert not (~stays).any() or logits[stays].min() > logits[~stays].max()
        assert torch.isfinite(top_k_filter(logits, k)).sum() >= k
        share = logits.softmax(-1)[torch.isfinite(top_p_filter(logits, p))].sum()
        assert share >= p - 1e-9

    @pytest.mark.parametrize("p", [0.0, -0.1, 1.01, float("nan")])
    def test_top_p_out_of_range(self, p: float) -> None:
        with pytest.raises(ValueError, match="top_p="):
            top_p_filter(torch.zeros(1, 3), p)

    @pytest.mark.parametrize("k", [0, 4, -1])
    def test_top_k_out_of_range(self, k: int) -> None:
        with pytest.raises(ValueError, match=f"top_k={k} must be from 1 to the size of the vocabulary, 3"):
            top_k_filter(torch.zeros(1, 3), k)

    def test_a_penalty_below_1(self) -> None:
        with pytest.raises(ValueError, match=r"penalty=0\.5"):
            repetition_penalty(torch.zeros(1, 3), torch.zeros(1, 1, dtype=torch.long), 0.5)


def config(**changes: object) -> TransformerConfig:
    return TransformerConfig(**({"vocab_size": 9, "d_model": 16, "num_heads": 4, "num_layers": 2} | changes))  # type: ignore[arg-type]


class TestCache:
    @pytest.mark.parametrize(
        ("positions", "num_kv_heads", "fused"),
        list(product(("sinusoidal", "learned", "rope", "alibi", "none"), (None, 2, 1), (False, True))),
    )
    def test_incremental_equals_full(self, positions: str, num_kv_heads: int | None, fused: bool) -> None:
        model = with_random_weights(
            CausalLanguageModel(config(positions=positions, num_kv_heads=num_kv_heads, fused=fused))
        )
        ids = torch.randint(9, (2, 9), generator=torch.Generator().manual_seed(2))
        cache = KVCache(num_kv_heads)
        with torch.no_grad():
            parts = [model(ids[:, a:b], cache) for a, b in ((0, 4), (4, 5), (5, 9))]
            assert torch.allclose(torch.cat(parts, dim=1), model(ids), rtol=0, atol=1e-10)
        kept = sum(tensor.numel() for tensor in cache.keys + cache.values)
        assert kept == 2 * 2 * 2 * (num_kv_heads or 4) * 9 * 4  # both, layers, rows, heads, tokens, width

    def test_reordered_rows_go_on_as_if_they_had_read_that_text(self) -> None:
        model = with_random_weights(CausalLanguageModel(config(positions="rope")))
        ids = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 0]])
        rows, new = torch.tensor([2, 2, 0, 1]), torch.tensor([[1], [2], [3], [4]])
        cache = KVCache()
        with torch.no_grad():
            model(ids, cache)
            cache.reorder(rows)
            whole = model(torch.cat([ids[rows], new], dim=1))[:, -1:]
            assert torch.allclose(model(new, cache), whole, rtol=0, atol=1e-10)


class TestWriting:
    def test_with_and_without_a_cache(self) -> None:
        model = with_random_weights(CausalLanguageModel(config(num_kv_heads=2, positions="rope")))
        prompt = torch.tensor([1, 2])
        texts = [
            sample(
                model, prompt, 20, num_return_sequences=4, generator=torch.Generator().manual_seed(3), use_cache=cached
            )
            for cached in (True, False)
        ]
        assert torch.equal(*texts)

    def test_one_beam_is_greedy(self) -> None:
        model = with_random_weights(CausalLanguageModel(config()))
        for token in range(9):
            prompt = torch.tensor([token])
            assert torch.equal(beam_search(model, prompt, 8, 1), sample(model, prompt, 8, temperature=0))

    def test_as_many_beams_as_texts_find_the_likeliest(self) -> None:
        model = with_random_weights(CausalLanguageModel(config(vocab_size=4)))
        texts = torch.tensor([[1, *rest] for rest in product(range(4), repeat=3)])
        with torch.no_grad():
            log_p = model(texts[:, :-1]).log_softmax(-1).gather(-1, texts[:, 1:, None]).sum((1, 2))
        assert torch.equal(beam_search(model, torch.tensor([1]), 3, 64)[0], texts[log_p.argmax()])

    def test_drawing_follows_the_probabilities(self) -> None:
        logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
        drawn = torch.bincount(draw(logits, 1.0, None, None, torch.Generator().manual_seed(0))[:, 0], minlength=3)
        assert torch.allclose(drawn / 20_000, torch.tensor([0.5, 0.3, 0.2]), atol=0.015)

    def test_the_mode_comes_back_after_an_error(self) -> None:
        model = CausalLanguageModel(config()).train()
        with pytest.raises(ValueError, match="top_k=99"):
            sample(model, torch.tensor([1]), 3, top_k=99)
        assert model.training
        with evaluating(model):
            assert not model.training and not torch.is_grad_enabled()
        assert model.training


class TestBadInput:
    @pytest.mark.parametrize(
        ("prompt", "options", "message"),
        [
            ([], {}, r"prompt must be one row of at least one token id"),
            ([[1, 2]], {}, r"prompt must be one row.*its shape is \(1, 2\)"),
            ([1, 9], {}, r"prompt has ids from 1 to 9; they must be at least 0 and below 9"),
            ([1], {"max_new_tokens": 0}, "max_new_tokens=0"),
            ([1] * 6, {}, r"prompt of 6 tokens and max_new_tokens=3 exceed the 8 positions"),
            ([1], {"temperature": -0.5}, r"temperature=-0\.5"),
            ([1], {"num_return_sequences": 0}, "num_return_sequences=0"),
            ([1], {"top_p": 1.5}, r"top_p=1\.5"),
            ([1], {"top_k": 10}, "top_k=10"),
            ([1], {"penalty": 0.9}, r"penalty=0\.9"),
        ],
    )
    def test_sample(self, prompt: list[int], options: dict[str, float], message: str) -> None:
        model = CausalLanguageModel(config(positions="learned", max_length=8))
        with pytest.raises(ValueError, match=message):
            sample(model, torch.tensor(prompt, dtype=torch.long), **({"max_new_tokens": 3} | options))  # type: ignore[arg-type]

    def test_beams(self) -> None:
        with pytest.raises(ValueError, match="num_return_sequences=3 must be from 1 to num_beams=2"):
            beam_search(CausalLanguageModel(config()), torch.tensor([1]), 3, 2, num_return_sequences=3)

"""Writing with a model: filters, the cache and searches by brute force, and token by token as `transformers` writes."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from solutions.config import TransformerConfig
from solutions.generation import (
    KVCache,
    beam_search,
    draw,
    repetition_penalty,
    sample,
    top_k_filter,
    top_p_filter,
)
from solutions.gpt import CausalLanguageModel
from solutions.pretrained import convert_gpt2, gpt2_config, load_weights
from tests.equality import with_random_weights

V, D, T, END = 11, 12, 5, 0
dtypes = st.sampled_from([torch.float32, torch.float64])
whole_rows = st.integers(1, 8).flatmap(
    lambda size: st.lists(st.lists(st.integers(-3, 3), min_size=size, max_size=size), min_size=1, max_size=4)
)


def language_model(seed: int = 0, **changes: object) -> CausalLanguageModel:
    choices = {"vocab_size": V, "d_model": D, "num_heads": 2, "num_layers": 2, "d_ff": 16, "max_length": 24}
    model = CausalLanguageModel(TransformerConfig(**(choices | changes)))  # type: ignore[arg-type]
    with_random_weights(model, seed)
    return model


class Chain(nn.Module):
    """What comes next depends on the last token alone, by a table of ln p, (V, V)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.config = TransformerConfig(vocab_size=len(table))
        self.table = table

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        return self.table[ids]


def chain(table: Tensor) -> CausalLanguageModel:
    return cast(CausalLanguageModel, Chain(table.log()))


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tokens(seed: int, *shape: int) -> Tensor:
    return torch.randint(1, V, shape, generator=torch.Generator().manual_seed(seed))


class TestTopKFilter:
    @given(whole_rows, dtypes, st.data())
    def test_all_as_likely_as_the_kth_stay(
        self, rows: list[list[int]], dtype: torch.dtype, data: st.DataObject
    ) -> None:
        k = data.draw(st.integers(1, len(rows[0])))
        expected = [[x if x >= sorted(row)[-k] else -math.inf for x in row] for row in rows]
        logits = torch.tensor(rows, dtype=dtype)
        filtered = top_k_filter(logits, k)
        assert torch.equal(filtered, torch.tensor(expected, dtype=dtype))
        assert filtered.dtype == dtype
        assert logits.tolist() == rows
        assert torch.equal(filtered, TopKLogitsWarper(k)(None, logits))

    @pytest.mark.parametrize("k", [0, -1, 6])
    def test_refuses(self, k: int) -> None:
        with pytest.raises(ValueError, match=f"top_k={k} .* 5"):
            top_k_filter(torch.zeros(2, 5), k)


class TestTopPFilter:
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=8), dtypes, st.data())
    def test_the_fewest_that_have_p_stay_and_what_is_as_likely(
        self, counts: list[int], dtype: torch.dtype, data: st.DataObject
    ) -> None:
        """Probabilities are whole numbers of parts, and p is a half number of parts: rounding decides nothing."""
        parts = data.draw(st.integers(0, sum(counts) - 1)) + 0.5
        ranked = sorted(counts, reverse=True)
        last = next(count for count, total in zip(ranked, itertools.accumulate(ranked), strict=True) if total >= parts)
        logits = torch.tensor([counts], dtype=dtype).log()
        before = logits.clone()
        filtered = top_p_filter(logits, parts / sum(counts))
        expected = [[-math.inf if count < last else x for count, x in zip(counts, before[0].tolist(), strict=True)]]
        assert torch.equal(filtered, torch.tensor(expected, dtype=dtype))
        assert filtered.dtype == dtype
        assert torch.equal(logits, before)

    @pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 0.99])
    @pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
    def test_equals_that_of_transformers_where_no_two_are_alike(self, p: float, scale: float) -> None:
        logits = normal(1, 200, 30) * scale
        filtered = top_p_filter(logits, p)
        assert torch.equal(filtered, TopPLogitsWarper(p)(None, logits))
        assert filtered.isfinite().any(-1).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_with_1_every_token_stays(self, dtype: torch.dtype) -> None:
        logits = normal(2, 50, 40, dtype=dtype) * 30
        assert torch.equal(top_p_filter(logits, 1.0), logits)

    def test_one_token_stays_however_small_p_is(self) -> None:
        logits = normal(3, 50, 40)
        filtered = top_p_filter(logits, 1e-30)
        assert torch.equal(filtered.isfinite().sum(-1), torch.ones(50, dtype=torch.long))
        assert torch.equal(filtered.argmax(-1), logits.argmax(-1))

    def test_what_was_removed_before_does_not_come_back(self) -> None:
        logits = top_k_filter(normal(4, 20, 30), 5)
        assert torch.equal(top_p_filter(logits, 0.999999), logits)

    @pytest.mark.parametrize("p", [0.0, -0.1, 1.01, math.nan])
    def test_refuses(self, p: float) -> None:
        with pytest.raises(ValueError, match=f"top_p={p}"):
            top_p_filter(torch.zeros(2, 5), p)


class TestRepetitionPenalty:
    @given(whole_rows, st.integers(0, 6), st.sampled_from([1.0, 1.2, 2.0, 5.0]), dtypes, st.integers(0, 99))
    def test_each_seen_token_falls_once(
        self, rows: list[list[int]], length: int, penalty: float, dtype: torch.dtype, seed: int
    ) -> None:
        logits = torch.tensor(rows, dtype=dtype) / 3
        before = logits.clone()
        ids = torch.randint(len(rows[0]), (len(rows), length), generator=torch.Generator().manual_seed(seed))
        lowered = repetition_penalty(logits, ids, penalty)
        expected = before.clone()
        for row, seen in enumerate(ids.tolist()):
            for token in set(seen):
                expected[row, token] *= penalty if before[row, token] < 0 else 1
                expected[row, token] /= penalty if before[row, token] > 0 else 1
        assert torch.equal(lowered, expected)
        assert lowered.dtype == dtype
        assert (lowered <= before).all()
        assert torch.equal(logits, before)
        assert torch.equal(lowered, RepetitionPenaltyLogitsProcessor(penalty)(ids, logits))

    @pytest.mark.parametrize("penalty", [0.99, 0.0, -1.0])
    def test_refuses(self, penalty: float) -> None:
        with pytest.raises(ValueError, match=f"penalty={penalty}"):
            repetition_penalty(torch.zeros(1, 4), torch.zeros(1, 2, dtype=torch.long), penalty)


class TestDraw:
    @given(
        st.sampled_from([0.3, 1.0, 1.7]),
        st.sampled_from([None, 1, 4, 20]),
        st.sampled_from([None, 0.2, 0.8]),
        st.integers(0, 999),
    )
    @settings(deadline=None)
    def test_equals_the_warpers_of_transformers_and_one_drawing(
        self, temperature: float, top_k: int | None, top_p: float | None, seed: int
    ) -> None:
        logits = normal(seed, 6, 20) * 2
        expected = logits / temperature
        expected = expected if top_k is None else TopKLogitsWarper(top_k)(None, expected)
        expected = expected if top_p is None else TopPLogitsWarper(top_p)(None, expected)
        ours, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
        drawn = draw(logits, temperature, top_k, top_p, ours)
        assert drawn.shape == (6, 1)
        assert torch.equal(drawn, torch.multinomial(expected.softmax(-1), 1, generator=theirs))
        assert torch.equal(ours.get_state(), theirs.get_state())  # nothing else was drawn
        assert torch.equal(logits, normal(seed, 6, 20) * 2)

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_tokens_are_as_frequent_as_they_are_likely(self, temperature: float) -> None:
        logits = torch.tensor([1.0, -1.0, 0.5, 0.0, -0.5])
        generator = torch.Generator().manual_seed(3)
        drawn = draw(logits.repeat(40_000, 1), temperature, None, None, generator)
        shares = drawn.flatten().bincount(minlength=5) / 40_000
        assert torch.allclose(shares, (logits / temperature).softmax(-1), rtol=0, atol=0.01)  # four standard errors

    def test_temperature_0_takes_the_likeliest_and_draws_nothing(self) -> None:
        logits, generator = normal(5, 30, 20), torch.Generator().manual_seed(1)
        before = generator.get_state()
        assert torch.equal(draw(logits, 0, 3, 0.5, generator), logits.argmax(-1, keepdim=True))
        assert torch.equal(generator.get_state(), before)

    def test_leaves_the_common_source_of_randomness_alone(self) -> None:
        before = torch.get_rng_state()
        draw(normal(6, 4, 9), 1.0, None, None, torch.Generator().manual_seed(1))
        assert torch.equal(torch.get_rng_state(), before)


class TestKVCache:
    @given(
        st.sampled_from(["learned", "sinusoidal", "rope", "alibi", "none"]),
        st.sampled_from([(4, None), (4, 4), (4, 2), (4, 1), (6, 2)]),
        st.booleans(),
        st.lists(st.integers(1, 4), min_size=1, max_size=5),
        st.integers(0, 99),
    )
    @settings(max_examples=60, deadline=None)
    def test_reading_piece_by_piece_gives_the_same_logits(
        self, positions: str, heads: tuple[int, int | None], fused: bool, pieces: list[int], seed: int
    ) -> None:
        num_heads, num_kv_heads = heads
        model = language_model(
            seed, positions=positions, d_model=24, num_heads=num_heads, num_kv_heads=num_kv_heads,
            fused=fused and positions != "alibi",
        )  # fmt: skip
        ids, cache = tokens(seed, 3, sum(pieces)), KVCache(num_kv_heads)
        assert cache.length == 0
        logits = []
        for piece in torch.split_with_sizes(ids, pieces, dim=1):
            logits.append(model(piece, cache))
            assert cache.length == sum(part.size(1) for part in logits)
        assert torch.allclose(torch.cat(logits, dim=1), model(ids), rtol=0, atol=1e-10)
        kept = sum(tensor.numel() for tensor in cache.keys + cache.values)
        assert kept == 2 * 2 * 3 * sum(pieces) * (num_kv_heads or num_heads) * (24 // num_heads)

    @given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.sampled_from([None, 1]), st.integers(0, 99))
    @settings(max_examples=30, deadline=None)
    def test_goes_on_with_other_rows(self, rows: list[int], num_kv_heads: int | None, seed: int) -> None:
        model = language_model(seed, num_kv_heads=num_kv_heads, positions="rope")
        old, new = tokens(seed, 3, T), tokens(seed + 1, len(rows), 2)
        cache = KVCache(num_kv_heads)
        model(old, cache)
        cache.reorder(torch.tensor(rows))
        assert cache.length == T
        texts = torch.cat([old[rows], new], dim=1)
        assert torch.allclose(model(new, cache), model(texts)[:, T:], rtol=0, atol=1e-10)

    def test_caches_keep_nothing_in_common(self) -> None:
        model, first, second = language_model(), KVCache(), KVCache()
        model(tokens(1, 1, T), first)
        assert (first.length, second.length) == (T, 0)

    def test_an_empty_cache_can_be_reordered(self) -> None:
        cache = KVCache()
        cache.reorder(torch.tensor([0, 0]))
        assert cache.length == 0

    def test_passes_gradients_on(self) -> None:
        model, ids = language_model(), tokens(2, 2, T)
        gradients = []
        for cache in (None, KVCache()):
            pieces = [ids] if cache is None else [ids[:, :2], ids[:, 2:]]
            model.zero_grad()
            torch.cat([model(piece, cache) for piece in pieces], dim=1).square().sum().backward()  # type: ignore[no-untyped-call]
            gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
        assert all(torch.allclose(a, b, rtol=0, atol=1e-8) for a, b in zip(*gradients, strict=True))


def fed(model: nn.Module) -> list[int]:
    """How many tokens the model is given each time that it is called from now on."""
    counts: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].numel()))
    return counts


def two_beams(model: CausalLanguageModel, prompt: Tensor, longest: int) -> Tensor:
    return beam_search(model, prompt, longest, 2)


WRITERS = [sample, two_beams]


class TestSample:
    @given(
        st.sampled_from([0.0, 0.7, 1.5]),
        st.sampled_from([None, 3]),
        st.sampled_from([None, 0.8]),
        st.integers(1, 4),
        st.sampled_from([1.0, 1.5]),
        st.sampled_from([None, END]),
        st.sampled_from(["learned", "rope", "alibi"]),
        st.integers(0, 99),
    )
    @settings(max_examples=60, deadline=None)
    def test_equals_a_plain_loop_with_or_without_a_cache(
        self, temperature: float, top_k: int | None, top_p: float | None, count: int, penalty: float,
        end_id: int | None, positions: str, seed: int,
    ) -> None:  # fmt: skip
        model = language_model(seed, positions=positions, num_kv_heads=1)
        prompt, generator = tokens(seed, T), torch.Generator().manual_seed(seed)
        texts = [prompt.tolist() for _ in range(count)]
        for _ in range(9):
            ids = torch.tensor(texts)
            logits = repetition_penalty(model(ids)[:, -1], ids, penalty)
            for text, token in zip(texts, draw(logits, temperature, top_k, top_p, generator).tolist(), strict=True):
                text += [end_id] if end_id is not None and end_id in text[T:] else token
            if all(end_id in text[T:] for text in texts):
                break
        written = [
            sample(
                model, prompt, 9, temperature, top_k, top_p, count, torch.Generator().manual_seed(seed), penalty,
                end_id, use_cache,
            )
            for use_cache in (True, False)
        ]  # fmt: skip
        assert written[0].tolist() == written[1].tolist() == texts
        assert written[0].dtype == torch.int64

    @pytest.mark.parametrize("use_cache", [True, False])
    def test_with_a_cache_each_token_is_read_once(self, use_cache: bool) -> None:
        model = language_model()
        counts = fed(model)
        sample(model, tokens(1, T), 4, num_return_sequences=3, use_cache=use_cache)
        assert counts == ([3 * T, 3, 3, 3] if use_cache else [3 * n for n in range(T, T + 4)])

    def test_writes_to_the_last_of_the_learned_positions(self) -> None:
        model = language_model(positions="learned", max_length=8)
        assert sample(model, tokens(1, T), 3).shape == (1, 8)
        assert sample(language_model(positions="rope", max_length=8), tokens(1, T), 9).shape == (1, T + 9)

    def test_stops_when_all_have_ended_and_not_before(self) -> None:
        """Token 1 is followed by 1, 2 or the end, token 2 by itself."""
        table = torch.tensor([[0.0, 1.0, 0.0], [0.4, 0.4, 0.2], [0.0, 0.0, 1.0]])
        lengths = set()
        for seed in range(30):
            generator = torch.Generator().manual_seed(seed)
            ids = sample(chain(table), torch.tensor([END, 1]), 20, 1.0, None, None, 3, generator, end_id=END)
            new = ids[:, 2:]
            for row in new.tolist():
                end = row.index(END) if END in row else len(row)
                assert all(token == END for token in row[end:])
            if new.size(1) < 20:
                assert (new == END).any(1).all()
                assert (new[:, :-1] != END).all(1).any()  # with one token less somebody had not ended
            lengths.add(new.size(1))
        assert 20 in lengths
        assert len(lengths) > 3

    def test_without_an_end_every_text_gets_all(self) -> None:
        table = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        assert sample(chain(table), torch.tensor([1]), 4).tolist() == [[1, 0, 0, 0, 0]]

    @pytest.mark.parametrize("write", WRITERS)
    def test_keeps_each_shared_head_once(self, write: Callable[..., Tensor]) -> None:
        model, caches = language_model(num_heads=4, num_kv_heads=2), []
        model.register_forward_pre_hook(lambda _, inputs: caches.append(inputs[1]))
        write(model, tokens(1, T), 3)
        assert len(caches) == 3
        assert all(kept.size(1) == 2 for kept in caches[0].keys + caches[0].values)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("write", WRITERS)
    def test_model_writes_in_eval_mode_and_comes_back_as_it_was(
        self, write: Callable[..., Tensor], training: bool
    ) -> None:
        model, prompt = language_model(dropout=0.5), tokens(1, T)
        seen = []
        model.register_forward_pre_hook(lambda *_: seen.append((model.training, torch.is_grad_enabled())))
        torch.manual_seed(1)
        expected = write(model, prompt, 5)
        model.train(training)
        torch.manual_seed(1)
        assert torch.equal(write(model, prompt, 5), expected)
        assert set(seen) == {(False, False)}
        assert all(part.training == training for part in model.modules())
        assert torch.is_grad_enabled()

    def test_model_comes_back_as_it_was_after_an_error_too(self) -> None:
        model = language_model().train()
        with pytest.raises(ValueError, match="top_k=12"):
            sample(model, tokens(1, T), 3, top_k=12)
        assert model.training

    def test_leaves_the_prompt_and_the_common_source_of_randomness_alone(self) -> None:
        model, prompt = language_model(), tokens(1, T)
        before = torch.get_rng_state()
        sample(model, prompt, 5, generator=torch.Generator().manual_seed(1))
        assert torch.equal(prompt, tokens(1, T))
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"prompt": torch.zeros(0, dtype=torch.long)}, "prompt"),
            ({"prompt": tokens(1, 2, T)}, "prompt"),
            ({"prompt": torch.tensor([1, V])}, f"prompt has ids from 1 to {V}"),
            ({"prompt": torch.tensor([-1, 1])}, "prompt has ids from -1"),
            ({"max_new_tokens": 0}, "max_new_tokens=0"),
            ({"max_new_tokens": 20}, "max_new_tokens=20 exceed the 24 positions"),
            ({"temperature": -0.1}, "temperature=-0.1"),
            ({"top_k": 0}, "top_k=0"),
            ({"top_k": V + 1}, f"top_k={V + 1}"),
            ({"top_p": 0.0}, "top_p=0.0"),
            ({"top_p": 1.5}, "top_p=1.5"),
            ({"num_return_sequences": 0}, "num_return_sequences=0"),
            ({"penalty": 0.5}, "penalty=0.5"),
        ],
    )
    def test_refuses(self, choices: dict[str, Any], message: str) -> None:
        model = language_model(positions="learned")
        plain: dict[str, Any] = {"prompt": tokens(1, T), "max_new_tokens": 3}
        with pytest.raises(ValueError, match=message):
            sample(model, **(plain | choices))


def all_texts(longest: int, end_id: int | None, size: int) -> Iterator[tuple[int, ...]]:
    """All that can follow a prompt: up to the end, or of the greatest length."""
    for text in itertools.product(range(size), repeat=longest):
        cut = text.index(end_id) + 1 if end_id in text else longest
        if set(text[cut:]) <= {end_id}:  # one of those that are alike up to their end
            yield text[:cut]


def score(model: nn.Module, prompt: Tensor, text: tuple[int, ...], length_penalty: float) -> float:
    ids = torch.cat([prompt, torch.tensor(text)])
    log_p = model(ids[None])[0].detach().log_softmax(-1)[len(prompt) - 1 : -1]
    return float(log_p.gather(-1, ids[len(prompt) :, None]).sum() / len(text) ** length_penalty)


class TestBeamSearch:
    @given(st.integers(1, 4), st.sampled_from([None, END]), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.integers(0, 99))
    @settings(max_examples=40, deadline=None)
    def test_with_beams_enough_for_all_texts_finds_the_best_of_all(
        self, longest: int, end_id: int | None, length_penalty: float, seed: int
    ) -> None:
        model, prompt = language_model(seed, vocab_size=3), torch.tensor([1, 2])
        texts = list(all_texts(longest, end_id, 3))
        texts.sort(key=lambda text: -score(model, prompt, text, length_penalty))
        best = [[*text, *[END] * (longest - len(text))] for text in texts]
        found = beam_search(model, prompt, longest, 3**longest + 1, length_penalty, end_id, len(texts))
        assert found[:, :2].tolist() == [prompt.tolist()] * len(texts)
        assert found[:, 2:].tolist() == best

    @given(st.sampled_from([None, END]), st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 99))
    @settings(max_examples=30, deadline=None)
    def test_one_beam_is_greedy_search(self, end_id: int | None, length_penalty: float, seed: int) -> None:
        model, prompt = language_model(seed), tokens(seed, T)
        greedy = sample(model, prompt, 12, temperature=0, end_id=end_id)
        assert torch.equal(beam_search(model, prompt, 12, 1, length_penalty, end_id), greedy)

    @given(st.integers(1, 5), st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 99))
    @settings(max_examples=40, deadline=None)
    def test_gives_different_texts_the_best_first(self, count: int, length_penalty: float, seed: int) -> None:
        model, prompt = language_model(seed, positions="rope", num_kv_heads=1), tokens(seed, T)
        found = beam_search(model, prompt, 8, 5, length_penalty, END, count)
        assert found.size(0) == count
        assert (found[:, :T] == prompt).all()
        texts = []
        for row in found[:, T:].tolist():
            cut = row.index(END) + 1 if END in row else len(row)
            assert END in row or cut == 8
            assert all(token == END for token in row[cut:])
            texts.append(tuple(row[:cut]))
        assert len(set(texts)) == count
        assert max(map(len, texts)) == found.size(1) - T  # filled up to the longest, and no further
        scores = [score(model, prompt, text, length_penalty) for text in texts]
        assert scores == sorted(scores, reverse=True)
        assert torch.equal(found[:1, : T + len(texts[0])], beam_search(model, prompt, 8, 5, length_penalty, END))

    def test_finds_what_greedy_search_misses(self) -> None:
        """After 1 the likelier 2 leads nowhere: 0.6 * 0.3 is less than 0.4 * 0.9."""
        table = torch.tensor(
            [[1, 0, 0, 0, 0], [0, 0, 0.6, 0.4, 0], [0.25, 0.2, 0.25, 0, 0.3], [0.1, 0, 0, 0, 0.9], [1, 0, 0, 0, 0]]
        )
        prompt = torch.tensor([1])
        assert sample(chain(table), prompt, 2, temperature=0).tolist() == [[1, 2, 4]]
        assert beam_search(chain(table), prompt, 2, 2).tolist() == [[1, 3, 4]]

    def test_the_length_penalty_decides_between_short_and_long(self) -> None:
        """From 1 the text ends with 0.5, or goes through 2 three times, with 0.45 and 0.9 each, and ends."""
        table = torch.tensor([[1, 0, 0, 0], [0.5, 0, 0.45, 0.05], [0.1, 0, 0.9, 0], [1, 0, 0, 0]])
        short, long = (
            beam_search(chain(table), torch.tensor([1]), 4, 2, length_penalty, END).tolist()
            for length_penalty in (0.0, 1.0)
        )
        assert short == [[1, 0]]
        assert long == [[1, 2, 2, 2, 2]]

    def test_a_finished_text_is_kept_though_more_beams_overtake_it(self) -> None:
        """The end has 0.4 at once; all the rest goes on with less each, and never ends."""
        table = torch.tensor([[1, 0, 0, 0], [0.4, 0, 0.3, 0.3], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])
        found = beam_search(chain(table), torch.tensor([1]), 5, 3, 0.0, END, 3)
        assert found[0].tolist() == [1, 0, 0, 0, 0, 0]
        assert (found[1:, 1:] != END).all()

    def test_each_token_is_read_once(self) -> None:
        model = language_model()
        counts = fed(model)
        beam_search(model, tokens(1, T), 4, 3)
        assert counts == [T, 3, 3, 3]

    def test_stops_when_no_beam_can_win(self) -> None:
        model = chain(torch.tensor([[1, 0, 0], [0.9, 0.05, 0.05], [0.9, 0.05, 0.05]]))
        counts = fed(model)
        assert beam_search(model, torch.tensor([1]), 50, 2, 1.0, END, 2).size(1) == 3
        assert len(counts) == 2

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"prompt": torch.zeros(0, dtype=torch.long)}, "prompt"),
            ({"max_new_tokens": 20}, "max_new_tokens=20 exceed"),
            ({"num_beams": 0}, "num_beams=0"),
            ({"num_return_sequences": 3}, "num_return_sequences=3 .* num_beams=2"),
            ({"num_return_sequences": 0}, "num_return_sequences=0"),
        ],
    )
    def test_refuses(self, choices: dict[str, Any], message: str) -> None:
        model = language_model(positions="learned")
        plain: dict[str, Any] = {"prompt": tokens(1, T), "max_new_tokens": 3, "num_beams": 2}
        with pytest.raises(ValueError, match=message):
            beam_search(model, **(plain | choices))


class Rounded(CausalLanguageModel):
    """Counts in float64 and gives logits in float32, as `generate` takes them: so both have the same."""

    def forward(self, *inputs: Any, **choices: Any) -> Tensor:
        return super().forward(*inputs, **choices).float()


SIZE, NEW, PROMPTS = 40, 16, 50
STOP = 19
"""The end of a text: with these weights some texts come to it early, some late and some never."""


@pytest.fixture(scope="module", params=[STOP, None], ids=["end", "no end"])
def end_id(request: pytest.FixtureRequest) -> int | None:
    return cast(int | None, request.param)


@pytest.fixture(scope="module")
def models(end_id: int | None) -> tuple[GPT2LMHeadModel, Rounded]:
    """The same weights in GPT-2 of `transformers` and in ours."""
    config = GPT2Config(
        vocab_size=SIZE, n_positions=48, n_embd=24, n_layer=2, n_head=3, bos_token_id=STOP, eos_token_id=end_id,
        pad_token_id=STOP,
    )  # fmt: skip
    theirs = with_random_weights(GPT2LMHeadModel(config))
    ours = Rounded(gpt2_config(config.to_dict())).to(torch.float64)
    load_weights(ours, convert_gpt2(theirs.state_dict()))
    return cast(GPT2LMHeadModel, theirs), ours.eval()


def prompts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(1, SIZE, (2 + number % 7,), generator=generator) for number in range(PROMPTS)]


def generate(model: GPT2LMHeadModel, prompt: Tensor, **choices: Any) -> Tensor:
    row = prompt.unsqueeze(0)
    plain: dict[str, Any] = {"max_new_tokens": NEW, "attention_mask": torch.ones_like(row), "top_k": 0, "top_p": 1.0}
    return cast(Tensor, cast(Any, model).generate(row, **(plain | choices)))


def telling(texts: list[Tensor], end_id: int | None) -> bool:
    """Whether texts differ, and, where they can end, some do and some do not."""
    new = [text[:, -NEW:] for text in texts]
    lengths = {text.size(1) - len(prompt) for text, prompt in zip(texts, prompts(), strict=True)}
    return len({tuple(text.flatten().tolist()) for text in new}) > PROMPTS / 2 and (
        lengths == {NEW} if end_id is None else len(lengths) > 2
    )


Models = tuple[GPT2LMHeadModel, Rounded]


class TestAgainstTransformers:
    def test_both_have_the_same_logits(self, models: Models) -> None:
        theirs, ours = models
        for prompt in prompts():
            assert torch.equal(ours(prompt[None]), theirs(prompt[None]).logits.float())

    @pytest.mark.parametrize("penalty", [1.0, 1.3])
    def test_greedy(self, models: Models, end_id: int | None, penalty: float) -> None:
        theirs, ours = models
        texts = []
        for prompt in prompts():
            texts.append(sample(ours, prompt, NEW, temperature=0, penalty=penalty, end_id=end_id))
            assert torch.equal(texts[-1], generate(theirs, prompt, do_sample=False, repetition_penalty=penalty))
        assert telling(texts, end_id)

    @pytest.mark.parametrize(
        ("temperature", "top_k", "top_p", "penalty"),
        [(1.0, None, None, 1.0), (0.7, 8, None, 1.0), (1.3, None, 0.8, 1.0), (0.9, 15, 0.9, 1.2)],
    )
    def test_sampled(
        self,
        models: Models,
        end_id: int | None,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        penalty: float,
    ) -> None:
        theirs, ours = models
        texts = []
        for seed, prompt in enumerate(prompts()):
            generator = torch.Generator().manual_seed(seed)
            texts.append(sample(ours, prompt, NEW, temperature, top_k, top_p, 3, generator, penalty, end_id))
            torch.manual_seed(seed)
            choices = {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0}
            expected = generate(
                theirs, prompt, do_sample=True, num_return_sequences=3, repetition_penalty=penalty, **choices
            )
            assert torch.equal(texts[-1], expected)
        assert telling(texts, end_id)

    @pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
    @pytest.mark.parametrize(("num_beams", "count"), [(2, 1), (4, 3)])
    def test_beams(self, models: Models, end_id: int | None, length_penalty: float, num_beams: int, count: int) -> None:
        theirs, ours = models
        texts = []
        for prompt in prompts():
            texts.append(beam_search(ours, prompt, NEW, num_beams, length_penalty, end_id, count))
            expected = generate(
                theirs, prompt, do_sample=False, num_beams=num_beams, num_return_sequences=count,
                length_penalty=length_penalty,
            )  # fmt: skip
            assert torch.equal(texts[-1], expected)
        assert telling(texts, end_id)

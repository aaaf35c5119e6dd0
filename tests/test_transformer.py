"""The full model against PyTorch's own, in values and gradients, and the properties that it must have."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from solutions.attention import MultiHeadAttention, causal_mask, padding_mask
from solutions.config import TransformerConfig
from solutions.positions import sinusoidal_positions
from solutions.transformer import Decoder, Embedding, Encoder, EncoderDecoder, greedy_translate, shift_right

settings.register_profile("transformer", deadline=None, max_examples=25, derandomize=True)
profile = settings.get_profile("transformer")

VOCABULARY = 13
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 6)
Module = TypeVar("Module", bound=nn.Module)
Pairs = list[tuple[list[Tensor], nn.Parameter]]


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=1e-10)


@st.composite
def configs(draw: st.DrawFn) -> TransformerConfig:
    heads = draw(st.integers(1, 3))
    return TransformerConfig(
        vocab_size=VOCABULARY,
        d_model=heads * 2 * draw(st.integers(1, 3)),
        num_heads=heads,
        num_layers=draw(st.integers(1, 3)),
        d_ff=draw(st.integers(1, 12)),
        norm_first=draw(st.booleans()),
        feed_forward=draw(st.sampled_from(["relu", "gelu"])),
        tie_embeddings=draw(st.booleans()),
        pad_id=draw(st.sampled_from([None, 0, 5])),
    )


def filled(module: Module, seed: int, dtype: torch.dtype = torch.float64) -> Module:
    generator = torch.Generator().manual_seed(seed)
    module.to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def random_ids(seed: int, batch: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded(ids: Tensor, pad_id: int | None) -> Tensor:
    """Row n loses its last n tokens to padding, but never its first; no other token is padding."""
    if pad_id is None:
        return ids
    ids = torch.where(ids == pad_id, (ids + 1) % VOCABULARY, ids)
    kept = (ids.size(1) - torch.arange(ids.size(0))).clamp_min(1).unsqueeze(1)
    return ids.masked_fill(torch.arange(ids.size(1)) >= kept, pad_id)


def attention_pairs(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> Pairs:
    layers = (ours.query, ours.key, ours.value)
    return [
        ([layer.weight for layer in layers], theirs.in_proj_weight),
        ([layer.bias for layer in layers], theirs.in_proj_bias),
        ([ours.output.weight], theirs.out_proj.weight),
        ([ours.output.bias], theirs.out_proj.bias),
    ]


def layer_pairs(ours: nn.Module, theirs: nn.Module) -> Pairs:
    return [([ours.weight], theirs.weight), ([ours.bias], theirs.bias)]  # type: ignore[list-item]


def stack_pairs(ours: Encoder | Decoder, theirs: nn.TransformerEncoder | nn.TransformerDecoder) -> Pairs:
    """Our parameters beside those of PyTorch's stack."""
    pairs: Pairs = []
    for block, layer in zip(ours.blocks, theirs.layers, strict=True):
        norms = [block.attention_norm, block.feed_forward_norm]
        pairs += attention_pairs(block.attention, layer.self_attn)
        if block.has_cross_attention:
            norms.insert(1, block.cross_attention_norm)
            pairs += attention_pairs(block.cross_attention, layer.multihead_attn)
        for number, norm in enumerate(norms, 1):
            pairs += layer_pairs(norm, getattr(layer, f"norm{number}"))
        pairs += layer_pairs(block.feed_forward.up, layer.linear1)
        pairs += layer_pairs(block.feed_forward.down, layer.linear2)
    if theirs.norm is not None:
        pairs += layer_pairs(ours.norm, theirs.norm)
    return pairs


def copied(pairs: Pairs) -> Pairs:
    with torch.no_grad():
        for ours, theirs in pairs:
            theirs.copy_(torch.cat(ours))
    return pairs


def options(config: TransformerConfig) -> dict[str, object]:
    return {
        "d_model": config.d_model,
        "nhead": config.num_heads,
        "dim_feedforward": config.d_hidden,
        "dropout": 0.0,
        "activation": config.feed_forward,
        "layer_norm_eps": config.norm_eps,
        "batch_first": True,
        "norm_first": config.norm_first,
        "dtype": torch.float64,
    }


def last_norm(config: TransformerConfig) -> nn.Module | None:
    return nn.LayerNorm(config.d_model, config.norm_eps, dtype=torch.float64) if config.norm_first else None


def encoder_peer(config: TransformerConfig) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(**options(config))  # type: ignore[arg-type]
    return nn.TransformerEncoder(layer, config.num_layers, last_norm(config), enable_nested_tensor=False)


def decoder_peer(config: TransformerConfig) -> nn.TransformerDecoder:
    layer = nn.TransformerDecoderLayer(**options(config))  # type: ignore[arg-type]
    return nn.TransformerDecoder(layer, config.num_layers, last_norm(config))


def agree(ours: Tensor, theirs: Tensor, pairs: Pairs, *shared: Tensor) -> None:
    """Both outputs are the same, and so are their gradients in each pair and in the tensors that both use."""
    assert close(ours, theirs)
    direction = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view(ours.shape)
    flat = [parameter for group, _ in pairs for parameter in group]
    own = torch.autograd.grad((ours * direction).sum(), [*flat, *shared])
    other = torch.autograd.grad((theirs * direction).sum(), [*(parameter for _, parameter in pairs), *shared])
    rest = iter(own)
    for (group, _), gradient in zip(pairs, other, strict=False):
        assert close(torch.cat([next(rest) for _ in group]), gradient)
    for gradient in other[len(pairs) :]:
        assert close(next(rest), gradient)


class TestEqualsPyTorch:
    @given(config=configs(), seed=seeds, batch=sizes, length=sizes)
    @settings(profile)
    def test_encoder(self, config: TransformerConfig, seed: int, batch: int, length: int) -> None:
        encoder, peer = filled(Encoder(config), seed), encoder_peer(config)
        pairs = copied(stack_pairs(encoder, peer))
        ids = padded(random_ids(seed, batch, length), config.pad_id)
        mask = None if config.pad_id is None else padding_mask(ids, config.pad_id)
        blocked = None if config.pad_id is None else ids == config.pad_id
        theirs = peer(encoder.embedding(ids), src_key_padding_mask=blocked)
        agree(encoder(ids, mask), theirs, pairs, encoder.embedding.tokens.weight)

    @given(config=configs(), seed=seeds, batch=sizes, length=sizes, context_length=sizes)
    @settings(profile)
    def test_decoder(self, config: TransformerConfig, seed: int, batch: int, length: int, context_length: int) -> None:
        decoder, peer = filled(Decoder(config), seed), decoder_peer(config)
        pairs = copied(stack_pairs(decoder, peer))
        ids, source = (
            random_ids(seed, batch, length),
            padded(random_ids(seed + 1, batch, context_length), config.pad_id),
        )
        generator = torch.Generator().manual_seed(seed)
        context = torch.randn(batch, context_length, config.d_model, generator=generator, dtype=torch.float64)
        context.requires_grad_()
        mask = None if config.pad_id is None else padding_mask(source, config.pad_id)
        blocked = None if config.pad_id is None else source == config.pad_id
        theirs = peer(decoder.embedding(ids), context, tgt_mask=~causal_mask(length), memory_key_padding_mask=blocked)
        agree(decoder(ids, context, mask), theirs, pairs, decoder.embedding.tokens.weight, context)

    @given(config=configs(), seed=seeds, batch=sizes, source_length=sizes, length=sizes)
    @settings(profile)
    def test_encoder_decoder(
        self, config: TransformerConfig, seed: int, batch: int, source_length: int, length: int
    ) -> None:
        model = filled(EncoderDecoder(config), seed)
        peer = nn.Transformer(
            config.d_model,
            config.num_heads,
            custom_encoder=encoder_peer(config),
            custom_decoder=decoder_peer(config),
            batch_first=True,
        )
        pairs = copied(stack_pairs(model.encoder, peer.encoder) + stack_pairs(model.decoder, peer.decoder))
        source = padded(random_ids(seed, batch, source_length), config.pad_id)
        target = random_ids(seed + 1, batch, length)
        blocked = None if config.pad_id is None else source == config.pad_id
        theirs = peer(
            model.encoder.embedding(source),
            model.decoder.embedding(target),
            tgt_mask=~causal_mask(length),
            src_key_padding_mask=blocked,
            memory_key_padding_mask=blocked,
        )
        tables = {id(t): t for t in (model.encoder.embedding.tokens.weight, model.output.weight)}
        agree(model(source, target), model.output(theirs), pairs, *tables.values())

    @pytest.mark.filterwarnings("ignore:enable_nested_tensor")
    @pytest.mark.parametrize("pad_id", [None, 0])
    def test_encoder_decoder_as_pytorch_builds_it_with_pre_norm(self, pad_id: int | None) -> None:
        config = TransformerConfig(VOCABULARY, d_model=8, num_heads=2, num_layers=2, pad_id=pad_id)
        model = filled(EncoderDecoder(config), 0)
        peer = nn.Transformer(num_encoder_layers=2, num_decoder_layers=2, **options(config))  # type: ignore[arg-type]
        pairs = copied(stack_pairs(model.encoder, peer.encoder) + stack_pairs(model.decoder, peer.decoder))
        assert sum(theirs.numel() for _, theirs in pairs) == sum(p.numel() for p in peer.parameters())
        source, target = padded(random_ids(1, 3, 6), pad_id), random_ids(2, 3, 4)
        blocked = None if pad_id is None else source == pad_id
        theirs = peer(
            model.encoder.embedding(source),
            model.decoder.embedding(target),
            tgt_mask=~causal_mask(4),
            src_key_padding_mask=blocked,
            memory_key_padding_mask=blocked,
        )
        agree(model(source, target), model.output(theirs), pairs, model.output.weight)


class TestEmbedding:
    @given(seed=seeds, batch=sizes, length=sizes, half=sizes)
    @settings(profile)
    def test_is_the_scaled_row_plus_the_position(self, seed: int, batch: int, length: int, half: int) -> None:
        embedding = filled(Embedding(TransformerConfig(VOCABULARY, 2 * half, 1)), seed)
        ids = random_ids(seed, batch, length)
        positions = sinusoidal_positions(length, 2 * half)
        expected = embedding.tokens.weight[ids] * (2 * half) ** 0.5 + positions.double()
        assert close(embedding(ids), expected)

    def test_adds_learned_positions(self) -> None:
        config = TransformerConfig(VOCABULARY, 6, 1, positions="learned", max_length=4, scale_embeddings=False)
        embedding = filled(Embedding(config), 0)
        assert embedding.positions is not None
        ids = random_ids(0, 2, 3)
        assert close(embedding(ids), embedding.tokens.weight[ids] + embedding.positions.weight[:3])
        with pytest.raises(ValueError, match="length=5 is more than max_length=4"):
            embedding(random_ids(0, 1, 5))

    @pytest.mark.parametrize("positions", ["rope", "alibi", "none"])
    def test_adds_nothing_where_positions_act_elsewhere(self, positions: str) -> None:
        config = TransformerConfig(VOCABULARY, 4, 2, positions=positions, scale_embeddings=False)  # type: ignore[arg-type]
        embedding, ids = filled(Embedding(config), 0), random_ids(0, 2, 3)
        assert torch.equal(embedding(ids), embedding.tokens.weight[ids])

    @pytest.mark.parametrize(("wrong", "range_of_ids"), [(VOCABULARY, "2 to 13"), (-1, "-1 to 3")])
    def test_an_id_outside_the_vocabulary_is_an_error(self, wrong: int, range_of_ids: str) -> None:
        embedding = Embedding(TransformerConfig(VOCABULARY, 4, 2))
        with pytest.raises(ValueError, match=f"ids run from {range_of_ids}; they must be at least 0 and below 13"):
            embedding(torch.tensor([[2, wrong, 3]]))

    @pytest.mark.parametrize(("scale", "spread"), [(True, 64**-0.5), (False, 0.02)])
    def test_starts_small(self, scale: bool, spread: float) -> None:
        embedding = Embedding(TransformerConfig(2000, 64, 4, scale_embeddings=scale))
        assert embedding.tokens.weight.std().item() == pytest.approx(spread, rel=0.02)


class TestTying:
    @staticmethod
    def tables(tied: bool) -> tuple[EncoderDecoder, list[nn.Parameter]]:
        model = EncoderDecoder(TransformerConfig(VOCABULARY, 8, 2, tie_embeddings=tied))
        embeddings = (model.encoder.embedding.tokens, model.decoder.embedding.tokens)
        return model, [*(embedding.weight for embedding in embeddings), model.output.weight]

    def test_tied_tables_are_one_parameter_and_stay_one(self) -> None:
        model, tables = self.tables(tied=True)
        assert len({id(table) for table in tables}) == 1
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        model(random_ids(0, 2, 3), random_ids(1, 2, 3)).square().sum().backward()
        optimiser.step()
        assert len({id(table) for table in self.tables(tied=True)[1]}) == 1
        assert torch.equal(tables[0], model.output.weight)

    def test_three_tables_otherwise(self) -> None:
        tied, one = self.tables(tied=True)
        free, three = self.tables(tied=False)
        assert len({id(table) for table in three}) == 3
        count = [sum(p.numel() for p in model.parameters()) for model in (tied, free)]
        assert count[1] - count[0] == 2 * one[0].numel()

    def test_the_gradient_of_the_one_table_is_the_sum_of_three(self) -> None:
        tied, (table, *_) = self.tables(tied=True)
        free, three = self.tables(tied=False)
        with torch.no_grad():
            for name, parameter in free.named_parameters():
                parameter.copy_(dict(tied.named_parameters(remove_duplicate=False))[name])
        ids = random_ids(0, 2, 4), random_ids(1, 2, 3)
        for model in (tied, free):
            model.double()(*ids).square().sum().backward()
        assert table.grad is not None
        assert torch.allclose(table.grad, sum(t.grad for t in three if t.grad is not None), rtol=1e-10)  # type: ignore[arg-type]


class TestWhoSeesWhat:
    @given(config=configs(), seed=seeds, length=st.integers(2, 6), data=st.data())
    @settings(profile)
    def test_the_decoder_knows_nothing_of_later_tokens(
        self, config: TransformerConfig, seed: int, length: int, data: st.DataObject
    ) -> None:
        model = filled(EncoderDecoder(config), seed)
        source, target = random_ids(seed, 2, 4), random_ids(seed + 1, 2, length)
        now = data.draw(st.integers(1, length - 1))
        changed = target.clone()
        changed[:, now:] = (changed[:, now:] + 1) % VOCABULARY
        assert torch.equal(model(source, target)[:, :now], model(source, changed)[:, :now])

    @given(config=configs(), seed=seeds, more=sizes)
    @settings(profile)
    def test_padding_of_the_source_changes_nothing(self, config: TransformerConfig, seed: int, more: int) -> None:
        config = dataclasses.replace(config, pad_id=3)
        model = filled(EncoderDecoder(config), seed)
        source, target = padded(random_ids(seed, 2, 4), 3), random_ids(seed + 1, 2, 3)
        longer = torch.cat([source, torch.full((2, more), 3)], dim=1)
        assert close(model(source, target), model(longer, target))

    def test_a_source_of_nothing_but_padding_gives_finite_logits(self) -> None:
        model = filled(EncoderDecoder(TransformerConfig(VOCABULARY, 8, 2, pad_id=0)), 0)
        assert torch.isfinite(model(torch.zeros(2, 3, dtype=torch.long), random_ids(0, 2, 4))).all()

    def test_every_token_of_the_source_reaches_every_place(self) -> None:
        model = filled(EncoderDecoder(TransformerConfig(VOCABULARY, 8, 2)), 0)
        source, target = random_ids(0, 1, 4), random_ids(1, 1, 3)
        for place in range(4):
            changed = source.clone()
            changed[0, place] = (changed[0, place] + 1) % VOCABULARY
            moved = (model(source, target) - model(changed, target)).abs().amax(-1)
            assert (moved > 1e-6).all()

    @pytest.mark.parametrize("norm_first", [True, False])
    def test_the_last_norm_is_there_for_pre_norm_only(self, norm_first: bool) -> None:
        config = TransformerConfig(VOCABULARY, 8, 2, norm_first=norm_first)
        for stack in (Encoder(config), Decoder(config)):
            names = {name for name, _ in stack.named_parameters() if name.startswith("norm")}
            assert names == ({"norm.weight", "norm.bias"} if norm_first else set())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("fused", [True, False])
    def test_keeps_the_dtype_and_leaves_its_inputs_alone(self, dtype: torch.dtype, fused: bool) -> None:
        model = filled(EncoderDecoder(TransformerConfig(VOCABULARY, 8, 2, pad_id=0, fused=fused)), 0, dtype)
        source, target = random_ids(0, 2, 4), random_ids(1, 2, 3)
        before = source.clone(), target.clone()
        assert model(source, target).dtype == dtype
        assert torch.equal(source, before[0])
        assert torch.equal(target, before[1])

    @given(config=configs(), seed=seeds)
    @settings(profile)
    def test_fused_gives_the_same(self, config: TransformerConfig, seed: int) -> None:
        plain, fused = (EncoderDecoder(dataclasses.replace(config, fused=choice)) for choice in (False, True))
        filled(plain, seed), filled(fused, seed)
        ids = padded(random_ids(seed, 3, 5), config.pad_id), random_ids(seed + 1, 3, 4)
        assert close(plain(*ids), fused(*ids))


class TestShiftRight:
    @given(seed=seeds, batch=sizes, length=sizes, start_id=st.integers(0, 20))
    @settings(profile)
    def test_puts_the_start_in_front_and_drops_the_last(
        self, seed: int, batch: int, length: int, start_id: int
    ) -> None:
        ids = random_ids(seed, batch, length)
        before = ids.clone()
        assert shift_right(ids, start_id).tolist() == [[start_id, *row[:-1]] for row in ids.tolist()]
        assert torch.equal(ids, before)

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
    def test_keeps_the_dtype(self, dtype: torch.dtype) -> None:
        assert shift_right(torch.tensor([[4, 5]], dtype=dtype), 1).dtype == dtype


def by_hand(
    model: Callable[[Tensor, Tensor], Tensor], source: list[int], start_id: int, end_id: int, max_length: int
) -> list[int]:
    """One sentence, one token at a time, with lists."""
    written: list[int] = []
    while len(written) < max_length and end_id not in written:
        logits = model(torch.tensor([source]), torch.tensor([[start_id, *written]]))[0, -1].tolist()
        written.append(logits.index(max(logits)))
    return written


class TestGreedyTranslate:
    @given(seed=seeds, batch=sizes, length=sizes, max_length=st.integers(1, 8), end_id=st.integers(0, VOCABULARY - 1))
    @settings(profile)
    def test_writes_what_a_loop_over_sentences_writes(
        self, seed: int, batch: int, length: int, max_length: int, end_id: int
    ) -> None:
        model = filled(EncoderDecoder(TransformerConfig(VOCABULARY, 8, 2, num_layers=1)), seed)
        with torch.no_grad():  # so that some rows end
            model.output.weight[end_id] *= 1.5
        source = random_ids(seed, batch, length)
        written = greedy_translate(model, source, 1, end_id, max_length).tolist()
        rows = [by_hand(model, row, 1, end_id, max_length) for row in source.tolist()]
        longest = max(map(len, rows))
        assert written == [row + [end_id] * (longest - len(row)) for row in rows]

    @staticmethod
    def table(*rows: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
        """A model that says the next id of a row, whatever is written; the source's first id chooses the row."""
        ids = torch.tensor(rows)

        def model(source: Tensor, target: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return nn.functional.one_hot(ids[source[:, 0], : target.size(1)], VOCABULARY).float()

        return model

    def test_fills_a_row_after_its_end_and_stops_when_all_have_ended(self) -> None:
        model = self.table([5, 2, 7, 7, 7], [6, 6, 6, 2, 7], [2, 8, 8, 8, 8])
        written = greedy_translate(model, torch.tensor([[0], [1], [2]]), 1, 2, 5)  # type: ignore[arg-type]
        assert written.tolist() == [[5, 2, 2, 2], [6, 6, 6, 2], [2, 2, 2, 2]]

    @pytest.mark.parametrize("max_length", [1, 2, 3])
    def test_writes_no_more_than_max_length(self, max_length: int) -> None:
        written = greedy_translate(self.table([5, 6, 7, 8]), torch.tensor([[0]]), 1, 2, max_length)  # type: ignore[arg-type]
        assert written.tolist() == [[5, 6, 7][:max_length]]

    def test_a_start_that_is_also_the_end_does_not_end(self) -> None:
        written = greedy_translate(self.table([5, 6, 2, 8]), torch.tensor([[0]]), 2, 2, 4)  # type: ignore[arg-type]
        assert written.tolist() == [[5, 6, 2]]

    def test_leaves_the_model_s_mode_and_the_source_alone(self) -> None:
        model = filled(EncoderDecoder(TransformerConfig(VOCABULARY, 8, 2)), 0).train()
        source = random_ids(0, 2, 3)
        before = source.clone()
        written = greedy_translate(model, source, 1, 2, 4)
        assert model.training
        assert written.dtype == source.dtype
        assert not written.requires_grad
        assert torch.equal(source, before)


def test_it_can_learn() -> None:
    """A few steps on one pair bring the loss down: gradients reach every parameter."""
    torch.manual_seed(0)
    model = EncoderDecoder(TransformerConfig(VOCABULARY, 16, 2, pad_id=0))
    source, target = random_ids(0, 4, 5), random_ids(1, 4, 5)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        logits = model(source, shift_right(target, 1))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < 1 < losses[0]
    assert greedy_translate(model, source, 1, VOCABULARY - 1, 5).shape[0] == 4

"""The causal model against GPT-2 of `transformers`, and what packing, perplexity and power laws must do."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from solutions.config import TransformerConfig
from solutions.gpt import IGNORED, CausalLanguageModel, fit_power_law, pack_documents, perplexity
from tests.equality import with_random_weights

V, D, T = 29, 12, 9
ids_lists = st.lists(st.lists(st.integers(1, V - 1), max_size=12), min_size=1, max_size=8)


def gpt2_config(**changes: object) -> TransformerConfig:
    settings = {
        "vocab_size": V, "d_model": D, "num_heads": 3, "num_layers": 2, "max_length": 16, "positions": "learned",
        "feed_forward": "gelu_tanh", "scale_embeddings": False,
    }  # fmt: skip
    return TransformerConfig(**(settings | changes))  # type: ignore[arg-type]


def turned(tensor: Tensor) -> Tensor:
    return tensor.mT if tensor.dim() > 1 else tensor


def copied(theirs: GPT2LMHeadModel, ours: CausalLanguageModel) -> CausalLanguageModel:
    """GPT-2's weights under our names: its Conv1D keeps matrices turned round, and the three of attention in one."""
    state = theirs.transformer.state_dict()
    found = {"embedding.tokens.weight": state["wte.weight"], "embedding.positions.weight": state["wpe.weight"]}
    found |= {f"norm.{kind}": state[f"ln_f.{kind}"] for kind in ("weight", "bias")}
    for layer in range(len(ours.blocks)):
        old, new = f"h.{layer}.", f"blocks.{layer}."
        for kind in ("weight", "bias"):
            found[f"{new}attention_norm.{kind}"] = state[f"{old}ln_1.{kind}"]
            found[f"{new}feed_forward_norm.{kind}"] = state[f"{old}ln_2.{kind}"]
            parts = state[f"{old}attn.c_attn.{kind}"].split(D, dim=-1)
            found |= {
                f"{new}attention.{name}.{kind}": turned(part)
                for name, part in zip(("query", "key", "value"), parts, strict=True)
            }
            found[f"{new}attention.output.{kind}"] = turned(state[f"{old}attn.c_proj.{kind}"])
            found[f"{new}feed_forward.up.{kind}"] = turned(state[f"{old}mlp.c_fc.{kind}"])
            found[f"{new}feed_forward.down.{kind}"] = turned(state[f"{old}mlp.c_proj.{kind}"])
    names = dict(ours.named_parameters())
    assert found.keys() == names.keys(), found.keys() ^ names.keys()
    for name, tensor in found.items():
        names[name].data = tensor.clone()
    return ours


class TestModel:
    @pytest.mark.parametrize("fused", [False, True])
    def test_equals_gpt2_of_transformers(self, fused: bool) -> None:
        config = GPT2Config(
            vocab_size=V,
            n_positions=16,
            n_embd=D,
            n_layer=2,
            n_head=3,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
        theirs = with_random_weights(GPT2LMHeadModel(config))
        ours = copied(theirs, CausalLanguageModel(gpt2_config(fused=fused)).to(torch.float64)).eval()
        ids = torch.randint(V, (3, T), generator=torch.Generator().manual_seed(1))
        assert torch.allclose(ours(ids), theirs(ids).logits, rtol=0, atol=1e-9)
        both = []
        for model in (ours, theirs):
            output = model(ids)
            logits = output if model is ours else output.logits
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            both.append(loss)
        assert torch.allclose(*both, rtol=0, atol=1e-9)
        assert both[0].item() == pytest.approx(theirs(ids, labels=ids).loss.item(), rel=1e-6)  # it counts in float32
        assert ours.output.weight.grad is not None
        assert torch.allclose(ours.output.weight.grad, theirs.transformer.wte.weight.grad, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope", "alibi", "none"])
    @pytest.mark.parametrize("norm_first", [True, False])
    def test_what_comes_later_changes_nothing(self, positions: str, norm_first: bool) -> None:
        model = with_random_weights(CausalLanguageModel(gpt2_config(positions=positions, norm_first=norm_first)))
        ids = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(2))
        changed = ids.clone()
        changed[:, 5:] = (changed[:, 5:] + 1) % V
        before, after = model(ids), model(changed)
        assert torch.equal(before[:, :5], after[:, :5])
        assert not torch.allclose(before[:, 5:], after[:, 5:])

    @pytest.mark.parametrize("positions", ["rope", "alibi", "none"])  # the others depend on where a document stands
    @pytest.mark.parametrize("fused", [False, True])
    def test_documents_packed_together_do_not_see_each_other(self, positions: str, fused: bool) -> None:
        fused = fused and positions != "alibi"
        model = with_random_weights(CausalLanguageModel(gpt2_config(positions=positions, fused=fused)))
        documents = [[3, 4, 5, 6], [7], [8, 9, 10, 11, 12]]
        inputs, _, numbers = pack_documents(documents, 16, end_id=0)
        packed = model(inputs, documents=numbers)
        for number, document in enumerate(documents):
            alone = model(torch.tensor([[0, *document]]))[0]
            assert torch.allclose(packed[0, numbers[0] == number], alone, rtol=0, atol=1e-12)
        assert not torch.allclose(packed, model(inputs))

    def test_tables_are_tied_or_not(self) -> None:
        tied, apart = (CausalLanguageModel(gpt2_config(tie_embeddings=tie)) for tie in (True, False))
        assert tied.output.weight is tied.embedding.tokens.weight
        count = [sum(parameter.numel() for parameter in model.parameters()) for model in (tied, apart)]
        assert count[1] - count[0] == V * D


class TestPacking:
    @given(ids_lists, st.integers(1, 7))
    def test_no_token_is_lost_and_each_is_predicted_once(self, documents: list[list[int]], length: int) -> None:
        inputs, targets, numbers = pack_documents(documents, length, end_id=0)
        assert inputs.shape == targets.shape == numbers.shape == (inputs.size(0), length)
        asked = targets.flatten()[targets.flatten() != IGNORED].tolist()
        assert asked == [token for document in documents for token in [*document, 0]]
        assert inputs.size(0) == math.ceil(len(asked) / length)

    @given(ids_lists, st.integers(1, 7))
    def test_documents_are_kept_apart(self, documents: list[list[int]], length: int) -> None:
        packed = pack_documents(documents, length, end_id=0)
        inputs, targets, numbers = (part.flatten() for part in packed)
        for number, document in enumerate(documents):
            assert inputs[numbers == number].tolist() == [0, *document]
            assert targets[numbers == number].tolist() == [*document, 0]
        rest = numbers == -1
        assert (inputs[rest] == 0).all()
        assert (targets[rest] == IGNORED).all()
        assert all(a <= b or b == -1 for a, b in pairwise(numbers.tolist()))

    def test_six_tokens_by_hand(self) -> None:
        inputs, targets, numbers = pack_documents([[5, 6, 7], [8]], context_length=4, end_id=1)
        assert inputs.tolist() == [[1, 5, 6, 7], [1, 8, 1, 1]]
        assert targets.tolist() == [[5, 6, 7, 1], [8, 1, IGNORED, IGNORED]]
        assert numbers.tolist() == [[0, 0, 0, 0], [1, 1, -1, -1]]

    def test_no_document(self) -> None:
        with pytest.raises(ValueError, match="no document"):
            pack_documents([], 4, 0)


class _Counter(nn.Module):
    """Gives the token at each place a probability that depends on how many tokens the window shows before it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.seen.append(ids.size(1))
        logits = torch.zeros(*ids.shape, V, dtype=torch.float64)
        return logits + torch.arange(ids.size(1), dtype=torch.float64).view(1, -1, 1) * functional.one_hot(
            torch.tensor(3), V
        )


class TestPerplexity:
    @given(st.integers(2, 40), st.integers(1, 12), st.data())
    @settings(max_examples=60, deadline=None)
    def test_each_token_is_scored_once_with_all_that_the_window_holds(
        self, length: int, context: int, data: st.DataObject
    ) -> None:
        stride = data.draw(st.integers(1, context))
        ids = torch.randint(V, (length,), generator=torch.Generator().manual_seed(length))
        model = _Counter()
        found = perplexity(model, ids, context, stride)
        expected, place, end = [], {}, 0
        for start in range(0, length - 1, stride):  # the first window that holds a target scores it
            for target in range(max(end, start) + 1, min(start + context, length - 1) + 1):
                place.setdefault(target, target - 1 - start)
            end = max(end, min(start + context, length - 1))
        assert sorted(place) == list(range(1, length))
        for target, seen in place.items():
            logits = model(torch.zeros(1, seen + 1, dtype=torch.long))[0, -1]
            expected.append(float(functional.cross_entropy(logits, ids[target])))
        assert found == pytest.approx(math.exp(sum(expected) / len(expected)), rel=1e-9)

    def test_one_window_is_e_to_the_loss(self) -> None:
        model = with_random_weights(CausalLanguageModel(gpt2_config()))
        ids = torch.randint(V, (T,), generator=torch.Generator().manual_seed(3))
        loss = functional.cross_entropy(model(ids[None, :-1])[0], ids[1:])
        assert perplexity(model, ids, T, T) == pytest.approx(math.exp(loss.item()), rel=1e-9)

    def test_the_mode_of_the_model_stays(self) -> None:
        model = with_random_weights(CausalLanguageModel(gpt2_config(dropout=0.5)))
        ids = torch.arange(8)
        quiet = perplexity(model, ids, 8, 8)
        model.train()
        assert perplexity(model, ids, 8, 8) == quiet
        assert model.training

    @pytest.mark.parametrize(
        ("length", "stride", "message"),
        [(1, 2, "1 tokens has none"), (9, 0, "stride=0"), (9, 5, "stride=5 must be from 1 to")],
    )
    def test_what_cannot_be_scored(self, length: int, stride: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            perplexity(_Counter(), torch.zeros(length, dtype=torch.long), 4, stride)


class TestPowerLaw:
    @given(st.floats(0.05, 2.5), st.floats(0.1, 50), st.floats(0, 5))
    @settings(max_examples=60, deadline=None)
    def test_finds_the_law_that_made_the_losses(self, exponent: float, coefficient: float, floor: float) -> None:
        sizes = [1e3, 4e3, 2e4, 1e5, 7e5]
        relative = [coefficient * (size / 1e3) ** -exponent + floor for size in sizes]
        found = fit_power_law(sizes, relative)
        assert found[0] == pytest.approx(exponent, rel=1e-3, abs=1e-4)
        assert found[1] == pytest.approx(coefficient * 1e3**exponent, rel=1e-2)
        assert found[2] == pytest.approx(floor, abs=1e-2 * coefficient)

    def test_no_other_curve_is_nearer(self) -> None:
        """PyTorch's own search, from several beginnings, ends where the fit is."""
        sizes = torch.tensor([1.0, 3.0, 10.0, 30.0, 100.0], dtype=torch.float64)
        losses = torch.tensor([4.1, 3.2, 2.65, 2.3, 2.18], dtype=torch.float64)
        for start in ([0.5, 2.0, 2.0], [1.5, 1.0, 1.0], [0.2, 4.0, 0.0]):
            law = torch.tensor(start, dtype=torch.float64, requires_grad=True)
            search = torch.optim.LBFGS([law], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

            def error(law: Tensor = law, search: torch.optim.LBFGS = search) -> Tensor:
                search.zero_grad()
                total = (law[2] + law[1] * sizes ** -law[0] - losses).square().sum()
                total.backward()
                return total

            search.step(error)  # type: ignore[arg-type]
            assert fit_power_law(sizes.tolist(), losses.tolist()) == pytest.approx(law.tolist(), rel=1e-3)

    @pytest.mark.parametrize(("sizes", "losses"), [([1, 2], [3, 2]), ([1, 2, 2], [3, 2, 2]), ([1, 2, 3], [3, 2])])
    def test_too_little_to_fit(self, sizes: list[float], losses: list[float]) -> None:
        with pytest.raises(ValueError, match="at least three different sizes"):
            fit_power_law(sizes, losses)

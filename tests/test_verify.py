"""Every check accepts what is right and rejects what is wrong, and the verification that says so can say otherwise."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from autograder.checks import Case, Check, Finding, Named, Rng, find, of_chapter, register, slip
from autograder.compare import holds, same, same_shape
from autograder.mutants import mutants
from autograder.verify import COLUMNS, RECORD, Report, rows, size, verify, verify_all
from course.chapters import names
from solutions import attention

pytestmark = pytest.mark.by_exercise

Softmax = type(find("attention.softmax"))
PaddingMask = type(find("attention.padding_mask"))


class TestEveryCheck:
    """What CI holds at 100 %."""

    @pytest.mark.slow
    @pytest.mark.parametrize("name", register().checks)
    def test_accepts_what_is_right_and_rejects_what_is_wrong(self, name: str) -> None:
        check, ticks = find(name), []
        report = verify(check, tick=lambda: ticks.append(1))
        assert report.faults == []
        assert report.kill_rate == 1
        assert report.killed + report.equivalent == report.mutants > 0
        assert report.variants >= 3
        assert report.misconceptions >= 1
        assert len(ticks) == size(check)
        recorded = json.loads(RECORD.read_text("utf-8"))
        assert recorded["columns"] == list(COLUMNS)
        assert list(next(rows([report]))) in recorded["rows"]  # or run: course verify --record

    def test_the_record_names_them_all_in_order(self) -> None:
        recorded = json.loads(RECORD.read_text("utf-8"))["rows"]
        assert [row[0] for row in recorded] == [*register().checks, "all"]
        for column, name in enumerate(COLUMNS[1:7], start=1):
            assert int(recorded[-1][column]) == sum(int(row[column]) for row in recorded[:-1]), name

    def test_several_at_once_give_the_same_reports(self) -> None:
        names, tried = ["attention.padding_mask", "attention.causal_mask"], []
        reports = verify_all(names, 2, done=tried.append)
        assert reports == [verify(find(name)) for name in names]
        assert sorted(tried) == sorted(size(find(name)) for name in names)

    def test_they_are_the_exercises_of_the_syllabus(self) -> None:
        assert {name: [check.name for check in of_chapter(name)] for name in names()} == {
            "01_attention": [
                "attention.softmax",
                "attention.scaled_dot_product_attention",
                "attention.causal_mask",
                "attention.padding_mask",
                "attention.SelfAttention",
            ],
            "02_multi_head": [
                "attention.split_heads",
                "attention.merge_heads",
                "attention.repeat_heads",
                "attention.MultiHeadAttention",
            ],
            "03_positions": [
                "positions.sinusoidal_positions",
                "positions.LearnedPositions",
                "positions.apply_rope",
                "positions.alibi_bias",
            ],
            "04_block": [
                "layers.LayerNorm",
                "layers.RMSNorm",
                "layers.gelu",
                "layers.FeedForward",
                "layers.SwiGLU",
                "block.TransformerBlock",
            ],
            "05_transformer": [
                "transformer.Encoder",
                "transformer.Decoder",
                "transformer.EncoderDecoder",
                "transformer.shift_right",
                "transformer.greedy_translate",
            ],
            "06_tokenization": [
                "tokenization.count_pairs",
                "tokenization.merge_pair",
                "tokenization.most_common_pair",
                "tokenization.train_bpe",
                "tokenization.BPETokenizer",
                "tokenization.wordpiece",
            ],
            "07_training": [
                "training.cross_entropy",
                "training.AdamW",
                "training.warmup_cosine",
                "training.clip_gradients",
                "training.sample_batch",
                "training.save_checkpoint",
                "training.load_checkpoint",
            ],
            "08_masked_lm": [
                "bert.mask_tokens",
                "bert.sentence_pairs",
                "bert.masked_lm_loss",
                "bert.MaskedLanguageModel",
            ],
            "09_causal_lm": [
                "gpt.pack_documents",
                "gpt.CausalLanguageModel",
                "gpt.perplexity",
                "gpt.fit_power_law",
            ],
            "10_fine_tuning": [
                "finetuning.SequenceClassifier",
                "finetuning.freeze",
                "finetuning.class_weights",
                "finetuning.precision_recall_f1",
                "finetuning.align_labels",
                "finetuning.best_span",
            ],
            "11_generation": [
                "generation.top_k_filter",
                "generation.top_p_filter",
                "generation.repetition_penalty",
                "generation.draw",
                "generation.KVCache",
                "generation.sample",
                "generation.beam_search",
            ],
            "12_real_weights": [
                "pretrained.rename_weights",
                "pretrained.convert_bert",
                "pretrained.convert_gpt2",
                "pretrained.mean_pool",
                "pretrained.search",
            ],
        }

    def test_names_and_messages_of_misconceptions_are_told_apart(self) -> None:
        for check in register().checks.values():
            for words in ("name", "message", "source"):
                found = [getattr(misconception, words) for misconception in check.misconceptions]
                assert len(set(found)) == len(found), (check.name, words)
            assert all(misconception.message.endswith(".") for misconception in check.misconceptions)


class Weak(PaddingMask):
    """Looks at nothing."""

    def judge(self, case: SimpleNamespace, got: SimpleNamespace) -> Iterator[Finding]:
        return iter(())


class Forgetful(PaddingMask):
    """Tries no padding id but 0."""

    def prepare(self, rng: Rng) -> Iterator[Case]:
        yield from (case for case in super().prepare(rng) if case.inputs["pad_id"] == 0)


class Generous(PaddingMask):
    """Gives the points to whoever has not begun."""

    probe = staticmethod(lambda target, case: {"mask": None})

    @property
    def probe_source(self) -> str:
        return "def probe(target, case):\n    return {'mask': None}"

    def judge(self, case: SimpleNamespace, got: SimpleNamespace) -> Iterator[Finding]:
        yield holds(True, "")


class Pedantic(Softmax):
    """Allows no rounding."""

    def judge(self, case: SimpleNamespace, got: SimpleNamespace) -> Iterator[Finding]:
        right = attention.softmax(case.x, dim=-1 if case.dim is None else case.dim)
        yield same_shape(got.y, right)
        yield holds(torch.equal(got.y, right), "The values are not exactly right.")


class Wrong(PaddingMask):
    """Expects the opposite."""

    def judge(self, case: SimpleNamespace, got: SimpleNamespace) -> Iterator[Finding]:
        yield same(got.mask, ~attention.padding_mask(case.token_ids, case.pad_id), "the mask")


class Imaginary(PaddingMask):
    equivalent: ClassVar = {"padding_mask: nothing -> something": "there is no such mutant"}


class Excusing(PaddingMask):
    equivalent: ClassVar = {mutant.label: "it is not" for mutant in list(mutants(attention.padding_mask))[:1]}


class Twins(PaddingMask):
    misconceptions: ClassVar = [
        *PaddingMask.misconceptions,
        Named("its twin", PaddingMask.misconceptions[0].target, PaddingMask.misconceptions[0].source, "The same."),
    ]


class Harmless(PaddingMask):
    misconceptions: ClassVar = [Named("harmless", attention.padding_mask, "", "This is right.")]


class Lonely(PaddingMask):
    variants: ClassVar = PaddingMask.variants[:2]


class WithWrongVariant(PaddingMask):
    variants: ClassVar = [*PaddingMask.variants, Named("wrong", lambda token_ids, pad_id: token_ids != pad_id, "")]


def faults(check: type[Check]) -> dict[str, list[str]]:
    """The lists of a report that are not empty."""
    report = verify(check())
    kinds = ("false_accepts", "false_rejects", "misdiagnosed", "incomplete")
    assert report.faults == [fault for kind in kinds for fault in getattr(report, kind)]
    return {kind: getattr(report, kind) for kind in kinds if getattr(report, kind)}


class TestVerificationNotices:
    def test_that_nothing_is_wrong(self) -> None:
        assert faults(PaddingMask) == {}

    def test_a_check_that_looks_at_nothing(self) -> None:
        found = faults(Weak)
        assert found.keys() == {"false_accepts"}
        for misconception in PaddingMask.misconceptions:
            assert sum(repr(misconception.name) in fault for fault in found["false_accepts"]) == 2
        assert sum("mutant survives" in fault for fault in found["false_accepts"]) >= 3
        assert verify(Weak()).kill_rate < 1

    def test_a_case_that_was_dropped(self) -> None:
        found = faults(Forgetful)
        assert any("'takes 0 for padding' earns all points" in fault for fault in found["false_accepts"])
        assert any("mutant survives" in fault for fault in found["false_accepts"])
        assert "false_rejects" not in found

    def test_points_for_the_untouched_stub(self) -> None:
        found = faults(Generous)
        assert any("the untouched stub earns 1 points" in fault for fault in found["false_accepts"])
        assert any("the untouched stub is told" in fault for fault in found["misdiagnosed"])

    def test_a_check_that_is_too_strict(self) -> None:
        found = faults(Pedantic)
        assert any("by log-sum-exp" in fault and "loses points" in fault for fault in found["false_rejects"])
        assert not any("the reference" in fault for fault in found["false_rejects"])

    def test_a_check_that_rejects_the_reference(self) -> None:
        assert any("the reference (seed 1) loses points" in fault for fault in faults(Wrong)["false_rejects"])

    def test_a_variant_that_is_wrong(self) -> None:
        assert [fault.partition(" (")[0] for fault in faults(WithWrongVariant)["false_rejects"]] == [
            "attention.padding_mask: wrong"
        ] * 3

    def test_an_equivalent_that_is_no_mutant(self) -> None:
        assert faults(Imaginary) == {
            "incomplete": ["attention.padding_mask: no such mutant: padding_mask: nothing -> something"]
        }

    def test_an_equivalent_that_is_caught_after_all(self) -> None:
        found = faults(Excusing)
        assert found.keys() == {"incomplete"}
        assert "listed as equivalent but caught: padding_mask: " in found["incomplete"][0]

    def test_a_misconception_that_no_case_tells_from_another(self) -> None:
        found = faults(Twins)
        assert found.keys() == {"misdiagnosed"}
        assert all("'its twin' is taken for ['marks the padding']" in fault for fault in found["misdiagnosed"])

    def test_a_misconception_that_is_right(self) -> None:
        assert [fault for fault in faults(Harmless)["false_accepts"] if "'harmless' earns all points" in fault]

    def test_too_few_variants(self) -> None:
        assert faults(Lonely) == {"incomplete": ["2 variants; at least 3 are needed"]}


class TestSlips:
    def test_one_that_no_longer_fits_the_reference_is_refused(self) -> None:
        before = list(PaddingMask.misconceptions)
        with pytest.raises(ValueError, match=r"slip 'old'.*does not contain 'exponentiate'"):
            slip(PaddingMask, "old", "Words.", {"exponentiate": "exp"})
        assert before == PaddingMask.misconceptions

    def test_they_leave_the_references_module_as_it_was(self) -> None:
        assert attention.padding_mask(torch.tensor([[1, 0]]), 0).tolist() == [[[True, False]]]
        for check in register().checks.values():
            for misconception in check.misconceptions:
                assert misconception.target is not check.reference


class TestTable:
    def test_sums_up_in_the_order_of_its_columns(self) -> None:
        one = Report("a", 2, 3, 4, 6, mutants=10, killed=8, equivalent=1, false_accepts=["x"])
        two = Report("b", 1, 3, 5, mutants=5, killed=5, false_rejects=["y", "z"], misdiagnosed=["w"])
        table = list(rows([one, two]))
        assert all(len(row) == len(COLUMNS) for row in table)
        assert table[0] == ("a", "2", "3", "4", "6", "10", "1", "89%", "1", "0", "0")
        assert table[2] == ("all", "3", "6", "9", "6", "15", "1", "93%", "1", "2", "1")

    def test_a_report_without_mutants_claims_no_kills(self) -> None:
        assert Report("a", 1, 3, 1).kill_rate == 0


def test_build_of_a_report_does_not_change_the_check() -> None:
    before: Any = (list(PaddingMask.misconceptions), list(PaddingMask.variants), dict(PaddingMask.equivalent))
    verify(Twins())
    assert before == (PaddingMask.misconceptions, PaddingMask.variants, PaddingMask.equivalent)

"""Mutants: every small fault that the rules promise is made, once, under a name of its own."""

import ast
import importlib
import inspect
import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from autograder.checks import build, find, register
from autograder.mutants import Mutant, mutants
from solutions import attention

REFERENCES = [check.reference for check in register().checks.values()]
BARE = {reference.__name__: list(mutants(reference)) for reference in REFERENCES}


def code(value: Any) -> Iterator[Any]:
    """What a function or class does, without its documentation and the places of its lines."""
    if isinstance(value, types.CodeType):
        yield value.co_name, value.co_code, value.co_names
        for constant in value.co_consts:
            # As it is written: (0.0, 0) and (0, 0.0) are equal.
            yield from code(constant) if isinstance(constant, types.CodeType) else [repr(constant)]
    elif isinstance(value, types.FunctionType):
        yield from code(value.__code__)
        yield repr(value.__defaults__)
        yield from code(getattr(value, "__wrapped__", None))  # what a decorator has put its own function around
    elif isinstance(value, type):
        for name, found in vars(value).items():
            member = found.fget if isinstance(found, property) else found
            if isinstance(member, types.FunctionType):
                yield name
                yield from code(member)


def without_words(reference: Any) -> Any:
    """The reference without docstrings and annotations, so that only what it does is left."""
    tree = ast.parse(inspect.getsource(reference))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return build(ast.unparse(tree), reference)


def labelled(name: str, words: str) -> Mutant:
    (found,) = [mutant for mutant in BARE[name] if words in mutant.label]
    return found


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.__name__)
class TestEveryReference:
    def test_has_mutants_each_under_its_own_label(self, reference: Any) -> None:
        labels = [mutant.label for mutant in mutants(reference)]
        assert len(labels) >= 3
        assert sorted(set(labels)) == sorted(labels)

    def test_mutants_are_whole_functions_or_classes_of_its_name(self, reference: Any) -> None:
        for mutant in mutants(reference):
            assert type(mutant.target) is type(reference)
            assert mutant.target.__name__ == reference.__name__
            assert mutant.target is not reference

    def test_is_not_among_its_mutants(self, reference: Any) -> None:
        original = list(code(without_words(reference)))
        assert original
        assert all(list(code(mutant.target)) != original for mutant in mutants(reference))

    def test_gives_the_same_mutants_again(self, reference: Any) -> None:
        assert [mutant.label for mutant in mutants(reference)] == [mutant.label for mutant in mutants(reference)]

    def test_stands_unchanged_afterwards(self, reference: Any) -> None:
        before = list(code(reference)), vars(importlib.import_module(reference.__module__)).copy()
        list(mutants(reference))
        assert (list(code(reference)), vars(importlib.import_module(reference.__module__))) == before

    def test_labels_say_where_and_what(self, reference: Any) -> None:
        for mutant in mutants(reference):
            scope, _, change = mutant.label.partition(": ")
            assert scope.split(".")[0] == reference.__name__
            before, arrow, after = change.partition(" -> ")
            assert arrow
            assert before
            assert after
            assert before != after or before.endswith(":"), mutant.label


class TestKnownMutants:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("softmax", "dim=-2"),
            ("softmax", "amin(dim, keepdim=True)"),
            ("softmax", "exponentials.mean(dim, keepdim=True)"),
            ("softmax", "exponentials * exponentials.sum"),
            ("softmax", "exp2"),
            ("softmax", "x + x.amax"),
            ("softmax", "return exponentials / exponentials.sum(dim, keepdim=True) -> (dropped)"),
            ("causal_mask", ".triu()"),
            ("causal_mask", "torch.zeros"),
            ("padding_mask", "token_ids == pad_id"),
            ("padding_mask", "token_ids < pad_id"),
            ("padding_mask", "unsqueeze(0)"),
            ("scaled_dot_product_attention", "if mask is not None"),
            ("scaled_dot_product_attention", "math.sqrt(query.size(-2))"),
            ("scaled_dot_product_attention", "* math.sqrt(query.size(-1))"),
            ("scaled_dot_product_attention", "weights.masked_fill(mask, 0.0)"),
            ("scaled_dot_product_attention", "weights = weights.masked_fill(~mask, 0.0) -> (dropped)"),
            ("scaled_dot_product_attention", "return (weights, weights @ value)"),
            ("SelfAttention", "SelfAttention.__init__: super().__init__() -> (dropped)"),
            ("SelfAttention", "bias=True"),
            ("SelfAttention", "self.query(x), self.query(x), self.value(x)"),
            ("SelfAttention", "self.value(x))"),
        ],
    )
    def test_are_made(self, name: str, words: str) -> None:
        labels = [mutant.label for mutant in BARE[name]]
        if "(dropped)" not in words:  # the new version stands behind the arrow
            labels = [label.partition(" -> ")[2] for label in labels]
        assert any(words in label for label in labels)

    @pytest.mark.parametrize(
        ("name", "words", "call", "outcome"),
        [
            ("causal_mask", "-> return torch.ones(length, length, dtype=torch.bool).triu()", lambda f: f(2).tolist(),
             [[True, True], [False, True]]),
            ("causal_mask", "(dropped)", lambda f: f(2), None),
            ("padding_mask", "-> return (token_ids == pad_id).unsqueeze(1)",
             lambda f: f(torch.tensor([[1, 0]]), 0).tolist(), [[[False, True]]]),
            ("softmax", "-> exponentials = torch.exp(x)", lambda f: f(torch.tensor([1e4])).isnan().item(), True),
        ],
        ids=["twin", "dropped", "operator", "left side alone"],
    )  # fmt: skip
    def test_do_what_their_label_says(self, name: str, words: str, call: Callable[[Any], Any], outcome: Any) -> None:
        assert call(labelled(name, words).target) == outcome

    def test_call_the_unchanged_rest_of_their_module(self) -> None:
        for mutant in BARE["scaled_dot_product_attention"]:
            assert mutant.target.__globals__["softmax"] is attention.softmax
            assert mutant.target.__globals__["math"] is math

    def test_the_equivalents_that_are_listed_exist_and_have_a_reason(self) -> None:
        for check in register().checks.values():
            labels = {mutant.label for mutant in BARE[check.symbol]}
            assert set(check.equivalent) <= labels
            assert all(len(reason.split()) > 2 for reason in check.equivalent.values())

    def test_the_one_equivalent_of_attention_is_equivalent(self) -> None:
        (label,) = find("attention.scaled_dot_product_attention").equivalent
        tensors = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) for _ in range(3)]
        mutant = labelled("scaled_dot_product_attention", label)
        assert torch.equal(mutant.target(*tensors)[0], attention.scaled_dot_product_attention(*tensors)[0])

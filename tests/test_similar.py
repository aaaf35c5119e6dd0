"""Which submissions are called alike: copies in another dress, and nobody who worked alone."""

import ast
import random
import time

import pytest

from autograder.checks import of_chapter
from autograder.sample import reference_source, students
from autograder.similar import Pair, fingerprints, pairs
from course.chapters import names

CHAPTERS = names()
Sources = dict[str, str]

STUB = (
    'def softmax(x, dim=-1):\n    """Turn scores into weights."""\n    # YOUR CODE HERE\n    raise NotImplementedError'
)


def variants(chapter: str) -> dict[str, Sources]:
    """Independent solutions of a chapter, the reference among them."""
    return {one.name: one.sources for one in students(chapter) if one.name.startswith(("reference", "variant"))}


class Disguise(ast.NodeTransformer):
    """Gives every parameter and variable another name."""

    def __init__(self, tree: ast.AST) -> None:
        own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)} - {"self"}
        self.names = {name: f"my_{number}" for number, name in enumerate(sorted(own))}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self.names.get(node.arg, node.arg)
        node.annotation = None
        return node


def disguised(source: str, imports: str = "") -> str:
    tree = ast.parse(source)
    return f"{imports}# all my own work\n{ast.unparse(Disguise(tree).visit(tree))}\n"


def disguise(sources: Sources) -> Sources:
    return {name: disguised(source, "import torch\nimport math\n") for name, source in sources.items()}


def named(found: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.first, pair.second) for pair in found]


class TestCopies:
    @pytest.mark.parametrize("chapter", CHAPTERS)
    @pytest.mark.parametrize("original", ["variant-1", "variant-2"])
    def test_a_copy_in_another_dress_is_found(self, chapter: str, original: str) -> None:
        group = variants(chapter)
        group[original] = {name: "import math\nimport torch\n" + source for name, source in group[original].items()}
        group["copy"] = disguise(group[original])
        assert all(group["copy"][name] != source for name, source in group[original].items())
        found = pairs(group, {})
        assert named(found) == [("copy", original)]
        assert found[0].share == 1
        assert set(found[0].exercises.values()) == {1}

    @pytest.mark.parametrize("chapter", CHAPTERS)
    def test_a_copy_with_another_line_here_and_there_is_found(self, chapter: str) -> None:
        group = variants(chapter)
        copy = disguise(group["variant-2"])
        changed = {name: source.replace("return ", "print(1, 2, 3)\n    return ", 1) for name, source in copy.items()}
        group["copy"] = {name: changed[name] if _is_python(changed[name]) else copy[name] for name in copy}
        assert group["copy"] != copy
        found = pairs(group, {})
        assert named(found) == [("copy", "variant-2")]
        assert 0.6 <= found[0].share < 1

    def test_the_exercises_that_speak_for_it_are_named(self) -> None:
        group = variants("02_multi_head")
        copied = {"attention.MultiHeadAttention", "attention.split_heads"}
        group["copy"] = {
            name: source if name in copied else group["variant-2"][name]
            for name, source in disguise(group["variant-1"]).items()
        }
        (pair,) = [pair for pair in pairs(group, {}, threshold=0.5) if pair.second == "variant-1"]
        assert {name for name, share in pair.exercises.items() if share > 0.5} == copied

    def test_three_who_share_are_three_pairs(self) -> None:
        group = variants("01_attention")
        group |= {"b": disguise(group["variant-1"]), "a": group["variant-1"]}
        assert sorted(named(pairs(group, {}))) == [("a", "b"), ("a", "variant-1"), ("b", "variant-1")]


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


class TestHonestWork:
    @pytest.mark.parametrize("chapter", CHAPTERS)
    def test_independent_solutions_are_not_alike(self, chapter: str) -> None:
        assert pairs(variants(chapter), {}, threshold=0.1) == []

    @pytest.mark.parametrize("chapter", CHAPTERS)
    def test_the_sample_class_has_its_two_copies_and_no_other_pair(self, chapter: str) -> None:
        """The slips are the reference but for a line: what so many have is no evidence."""
        found = pairs({one.name: one.sources for one in students(chapter)}, {})
        assert named(found) == [("alike-1", "alike-2")]

    def test_what_is_known_is_no_evidence(self) -> None:
        group = variants("01_attention")
        group["copy"] = group["variant-1"]
        assert pairs(group, {}, known=[group["variant-1"]]) == []

    def test_the_stub_is_no_evidence(self) -> None:
        long = "def f(x):\n" + "".join(f"    x = x * {n} + x.exp() / (x - {n})\n" for n in range(30))
        two = {"a": {"e": long}, "b": {"e": long}}
        assert named(pairs(two, {})) == [("a", "b")]
        assert pairs(two, {"e": long}) == []

    def test_equal_short_solutions_are_no_evidence(self) -> None:
        group = {name: {"softmax": "def softmax(x, dim=-1):\n    return x.softmax(dim)"} for name in ("a", "b")}
        others = {f"c{n}": {"softmax": f"def softmax(x, dim=-1):\n    return x.exp() / {n}"} for n in range(300)}
        assert pairs(group | others, {"softmax": STUB}) == []

    def test_one_rare_solution_beside_common_ones_is_no_copy(self) -> None:
        """Two of a class write softmax the same rare way, and the rest as everybody does."""
        group = variants("01_attention")
        usual = {f"c{n}": group["reference"] for n in range(100)}
        rare = group["reference"] | {"attention.softmax": group["variant-2"]["attention.softmax"]}
        assert pairs(usual | {"a": rare, "b": rare}, {}) == []

    def test_what_is_not_python_is_like_nothing(self) -> None:
        broken = "def f(x:\n" * 50
        assert pairs({"a": {"e": broken}, "b": {"e": broken}}, {}) == []
        assert fingerprints("x = " + "-" * 5000 + "1") == frozenset()

    def test_nobody(self) -> None:
        assert pairs({}, {}) == []
        assert pairs({"a": {}, "b": {}}, {"e": STUB}) == []


@pytest.mark.parametrize("chapter", ["01_attention", "04_block"])
def test_a_class_of_300_takes_seconds_and_gives_the_copies_alone(chapter: str) -> None:
    known = variants(chapter)
    original = known.pop("variant-1")
    chance = random.Random(0)
    group = {
        f"s{n:03}": {check.name: chance.choice(list(known.values()))[check.name] for check in of_chapter(chapter)}
        for n in range(298)
    }
    group |= {"x": original, "y": disguise(original)}
    stubs = {check.name: reference_source(check).partition('"""\n')[0] for check in of_chapter(chapter)}
    begun = time.process_time()
    found = pairs(group, stubs)
    assert time.process_time() - begun < 20
    assert named(found) == [("x", "y")]

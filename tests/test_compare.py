"""How what came back is compared with what is right, where it is no tensor, and how inputs are described."""

from typing import Any

import pytest
import torch

from autograder.compare import close, identical, same, same_items, same_table
from autograder.judge import describe
from autograder.wire import Foreign


class TestRounding:
    """What float32 can do is right, also where the numbers are float64; a mistake is not."""

    @pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e6])
    def test_numbers_that_went_through_float32_are_right(self, size: float) -> None:
        right = size * torch.linspace(-1, 1, 101, dtype=torch.float64)
        assert same(right.float().double(), right).ok
        assert close(right.float().double(), right)
        assert close(float(right[7].float()), float(right[7]))

    @pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
    def test_a_thousandth_more_is_wrong(self, size: float) -> None:
        right = size * torch.linspace(-1, 1, 101, dtype=torch.float64)
        for wrong in (right * 1.001, right + size * 1e-3):
            assert not same(wrong, right).ok
            assert not close(wrong, right)
        assert not close(size * 1.001, size)

    def test_what_is_left_where_large_numbers_cancel_is_seen_beside_them(self) -> None:
        right = torch.tensor([1e4, -1e4, 2e4, 0.0], dtype=torch.float64)
        assert same(right + torch.tensor([0.0, 0.0, 0.0, 1e-2]), right).ok
        assert not same(right + torch.tensor([0.0, 0.0, 0.0, 1.0]), right).ok
        assert not same(right + torch.tensor([0.0, 0.0, 0.0, 1e-2]), right / 1e6).ok

    def test_one_enormous_number_hides_nothing(self) -> None:
        low = torch.finfo(torch.float64).min
        for huge in (low, -torch.inf, torch.inf):
            right = torch.tensor([huge, 1.0, 2.0, 3.0], dtype=torch.float64)
            assert same(right, right).ok
            assert not same(right + torch.tensor([0.0, 0.0, 0.0, 1e-3]), right).ok

    def test_nan_is_nan_and_a_float_is_no_int(self) -> None:
        assert close(float("nan"), float("nan"))
        assert not close(float("nan"), 1.0)
        assert not close(1, 1.0)
        assert not close(True, 1.0)

    def test_identical_is_to_the_last_digit(self) -> None:
        weights = torch.tensor([1.0, torch.nan], dtype=torch.float64)
        right = {"weights": [weights], "step": 3, "lr": 0.1}
        assert identical(right, {**right, "weights": [weights.clone()]})
        assert not identical(right, {**right, "weights": [weights + 1e-15]})
        assert not identical(right, {**right, "weights": [weights.float()]})
        assert not identical(right, {**right, "lr": 0.1 + 1e-16})
        assert close(right, {**right, "weights": [weights + 1e-9]})


class TestItems:
    @pytest.mark.parametrize("value", [[], [1, 2], ["a", (1, 2)], [b"x", None]])
    def test_the_same_are_right(self, value: list[Any]) -> None:
        assert same_items(list(value), value).ok

    @pytest.mark.parametrize(
        ("got", "said"),
        [
            (None, "`ids` is None. Does every path through your code end in `return`?"),
            ((1, 2, 3), "`ids` is of type tuple; return a list."),
            (Foreign("generator"), "`ids` is of type generator; return a list."),
            ([1, 2], "`ids` has 2 items; here it should have 3."),
            ([1, 7, 8], "`ids`: 2 of 3 items differ, the first at place 1."),
            ([1, True, 3], "`ids`: 1 of 3 items differ, the first at place 1."),
        ],
    )
    def test_a_difference_is_named_and_what_is_right_is_not(self, got: Any, said: str) -> None:
        finding = same_items(got, [1, 2, 3], "`ids`")
        assert not finding.ok
        assert finding.message == said


class TestTables:
    @pytest.mark.parametrize("value", [{}, {(1, 2): 3}, {0: b"a", 1: b"b"}])
    def test_the_same_are_right_in_any_order(self, value: dict[Any, Any]) -> None:
        assert same_table(dict(reversed(value.items())), value).ok

    @pytest.mark.parametrize(
        ("got", "said"),
        [
            (None, "The result is None. Does every path through your code end in `return`?"),
            ([1], "The result is of type list; return a dict."),
            ({1: b"a"}, "The result lacks 1 of its 2 keys."),
            ({1: b"a", 2: b"b", 3: b"c"}, "The result has the key 3, which does not belong there."),
            ({1: b"x", 2: b"b"}, "The result: 1 of 2 values are wrong, such as that of 1."),
            ({1: 97, 2: b"b"}, "The result: 1 of 2 values are wrong, such as that of 1."),
        ],
    )
    def test_a_difference_is_named_and_what_is_right_is_not(self, got: Any, said: str) -> None:
        finding = same_table(got, {1: b"a", 2: b"b"})
        assert not finding.ok
        assert finding.message == said


class TestDescriptions:
    def test_shapes_numbers_and_short_texts_are_shown(self) -> None:
        given = {"x": torch.zeros(2, 3), "dim": -1, "flag": True, "text": "low", "ids": [1, 2], "none": []}
        given |= {"pairs": {(1, 2): 3}}
        assert describe(given) == "x (2, 3), dim=-1, text='low', ids=[1, 2], pairs={(1, 2): 3}"

    def test_what_holds_tensors_is_not_printed(self) -> None:
        assert (
            describe({"weights": {"a": torch.zeros(2)}, "all": [torch.ones(3)]}) == "weights of 1 item, all of 1 item"
        )

    def test_long_ones_by_their_length(self) -> None:
        assert describe({"text": "a" * 200, "ids": list(range(90))}) == "text of 200 characters, ids of 90 items"

    def test_nothing_to_describe(self) -> None:
        assert describe({"flag": False, "other": None}) == ""

"""The curve that grows while a cell trains."""

from typing import Any

import matplotlib as mpl
import pytest

from course import live
from course.live import LiveLoss

mpl.use("agg")


class _Screen:
    """Stands for the notebook: keeps what is shown."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def display(self, figure: Any, display_id: bool) -> "_Screen":
        assert display_id
        self.shown.append(figure)
        return self

    def update(self, figure: Any) -> None:
        self.shown.append(figure)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> _Screen:
    screen = _Screen()
    monkeypatch.setattr(live, "display", screen.display)
    return screen


def test_it_draws_while_it_goes_and_once_at_the_end(screen: _Screen) -> None:
    with LiveLoss({"ln V": 3.0}, steps=4, mean_of=2, seconds=0.0) as curve:
        for loss in (3.0, 2.0, 1.0, 0.0):
            curve.add(loss)
    assert len(screen.shown) == 5
    assert "left" in screen.shown[1].axes[0].get_title()
    last = screen.shown[-1].axes[0]
    assert last.get_title() == ""
    assert last.lines[0].get_xydata().tolist() == [[1.0, 2.5], [3.0, 0.5]]
    assert last.lines[1].get_ydata()[0] == 3.0
    assert [text.get_text() for text in last.texts] == ["ln V"]


def test_a_stopped_training_shows_what_there_is(screen: _Screen) -> None:
    with pytest.raises(KeyboardInterrupt), LiveLoss({}, steps=100, mean_of=1) as curve:
        curve.add(2.0)
        raise KeyboardInterrupt
    assert screen.shown[-1].axes[0].lines[0].get_ydata().tolist() == [2.0]


def test_more_landmarks_than_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="5 landmarks"):
        LiveLoss(dict.fromkeys("abcde", 1.0), steps=1)

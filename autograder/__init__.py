"""What judges: checks of the exercises, their tests, and the grading of a class."""

from autograder.client import check
from autograder.workspace import earlier

__all__ = ["check", "earlier"]

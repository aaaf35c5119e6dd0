"""What judges: checks of the exercises, their tests, and the grading of a class."""

from autograder.client import check

__all__ = ["check"]

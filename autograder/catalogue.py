"""What the editions of a chapter need to know of its exercises and questions."""

from autograder.checks import Check, of_chapter, register
from course.editions import Catalogue, ExerciseCard, ReflectionCard


def card(check: Check) -> ExerciseCard:
    """An exercise as an edition shows it."""
    return ExerciseCard(check.name, check.points, check.difficulty, check.minutes, check.reference)


def catalogue(chapter: str) -> Catalogue:
    """The exercises and questions of one chapter."""
    questions = [question for question in register().reflections.values() if question.chapter == chapter]
    return Catalogue(
        exercises={check.name: card(check) for check in of_chapter(chapter)},
        reflections={q.name: ReflectionCard(q.name, q.points, q.rubric) for q in questions},
    )

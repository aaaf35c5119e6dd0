"""Submissions that grading is tested with: hostile ones, honest ones that look unusual, and honest mistakes.

Each has the points that it deserves, and the reason.
They are of chapter 01, whose checks give 12 points: softmax 2, attention 4, each mask 1, self-attention 4.
"""

from autograder.attacks.fair import FAIR
from autograder.attacks.handed import CHAPTER, Handed
from autograder.attacks.honest import HONEST
from autograder.attacks.hostile_data import DATA
from autograder.attacks.hostile_files import FILES
from autograder.attacks.hostile_kernel import KERNEL
from autograder.attacks.hostile_verdict import VERDICT

HOSTILE: list[Handed] = [*VERDICT, *KERNEL, *DATA, *FILES]

__all__ = ["CHAPTER", "FAIR", "HONEST", "HOSTILE", "Handed"]

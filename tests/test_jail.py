"""A kernel in the jail answers like any other, and leaves nothing behind however it ends."""

import gc
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from tempfile import TemporaryDirectory

import nbclient
import nbformat
import pytest
from click.testing import CliRunner
from jail import LIGHT, PRESENT, SMALL, Cell, cell, in_namespace, light_jail, open_channels, outer_namespace
from jupyter_core.utils import run_sync

from autograder.commands import doctor
from autograder.jail import JailError, Limits, WarmJail, bubblewrap, jail_for, kernel_manager, provisioner
from autograder.jail.layers import NAMES

ROOT = Path(__file__).parents[1]
NAMESPACE = "import os; print(os.readlink('/proc/self/ns/pid'))"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    folder.chmod(0o755)
    (folder / "earlier.py").write_text("def answer():\n    return 42\n")
    return folder


@pytest.fixture(scope="module")
def jail(library: Path) -> Iterator[WarmJail]:
    with light_jail(library) as started:
        yield started


@pytest.fixture
def kernel(jail: WarmJail) -> Iterator[Cell]:
    with cell(jail) as started:
        yield started


def execute(library: Path, code: str, **options: bool) -> str:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with TemporaryDirectory(prefix="g") as folder:
        manager = kernel_manager(library, Path(folder), env={"GREETING": "hello"}, **options)
        nbclient.NotebookClient(notebook, km=manager, timeout=60).execute()
        run_sync(manager.shutdown_kernel)(now=True)
    [output] = notebook.cells[0].outputs
    return str(output["data"]["text/plain"])


@pytest.fixture(scope="module")
def warm(library: Path) -> Iterator[WarmJail]:
    yield jail_for(library)
    provisioner.close_all()


def test_nbclient_executes_a_notebook_in_the_jail(warm: WarmJail, library: Path) -> None:
    code = "import os, torch, earlier\ntorch.ones(2).sum(), earlier.answer(), os.environ['GREETING'], os.getpid()"
    assert execute(library, code) == "(tensor(2.), 42, 'hello', 1)"
    assert jail_for(library) is warm


def test_without_the_jail_the_same_notebook_runs_as_an_ordinary_process(library: Path) -> None:
    code = "import os, torch, earlier\ntorch.ones(2).sum(), earlier.answer(), os.environ['GREETING'], os.getpid() > 1"
    assert execute(library, code, unsafe=True) == "(tensor(2.), 42, 'hello', True)"


def test_a_kernel_answers_in_well_under_a_second(warm: WarmJail) -> None:
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        with cell(warm):
            seconds.append(time.perf_counter() - begin)
    print(f"from spawn to the answer of a kernel: {', '.join(f'{one:.2f}' for one in seconds)} s")
    assert min(seconds) < 1


_PARAMETER = "p = torch.nn.Parameter(torch.ones(2)); p.sum().backward();"
FIRST_USES = {
    "torch.func.grad": "torch.func.grad(torch.sin)(torch.tensor(1.0))",
    "torch.func.jacrev": "torch.func.jacrev(torch.sin)(torch.ones(3))",
    "torch.func.vmap": "torch.func.vmap(torch.sin)(torch.ones(3))",
    "torch.func.functional_call": "torch.func.functional_call(m := torch.nn.Linear(2, 2), dict(m.named_parameters()), "
    "(torch.ones(1, 2),))",
    "torch.optim": f"{_PARAMETER} torch.optim.AdamW([p]).step(); torch.optim.SGD([p], lr=0.1).step()",
    "torch.optim.lr_scheduler": f"{_PARAMETER} torch.optim.lr_scheduler.StepLR(torch.optim.SGD([p], lr=0.1), 1)",
    "torch.testing": "torch.testing.assert_close(torch.ones(2), torch.ones(2))",
    "torch.utils.checkpoint": "from torch.utils.checkpoint import checkpoint\n"
    "checkpoint(torch.sin, torch.ones(3, requires_grad=True), use_reentrant=False)",
    "gradcheck": "torch.autograd.gradcheck(torch.sin, torch.ones(2, dtype=torch.float64, requires_grad=True))",
    "torch.profiler": "with torch.profiler.profile(): torch.ones(2) + 1",
    "torch.compile": "assert torch.compile(lambda x: x + 1, fullgraph=True)(torch.ones(3)).sum() == 6",
    "torch.jit.script": "torch.jit.script(torch.nn.Linear(2, 2))(torch.ones(1, 2))",
    "a dispatch mode": "from torch.utils.flop_counter import FlopCounterMode\n"
    "with FlopCounterMode(display=False): torch.ones(2, 2) @ torch.ones(2, 2)",
    "torch.distributions": "torch.distributions.Categorical(logits=torch.ones(3)).sample()",
    "parametrizations": "torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))",
    "DataLoader": "list(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(3)), batch_size=2))",
    "attention": "torch.nn.functional.scaled_dot_product_attention(*[torch.ones(1, 2, 3, 4)] * 3)",
    "torch.linalg": "torch.linalg.svd(torch.eye(3)); torch.fft.fft(torch.ones(4)); torch.special.erf(torch.ones(1))",
    "numpy": "import numpy as np; np.linalg.svd(np.ones((3, 3))); np.random.default_rng(0).normal(size=3)",
    "a plot": "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
}


@pytest.mark.parametrize("name", FIRST_USES)
def test_no_first_use_takes_the_time_of_an_exercise(warm: WarmJail, name: str) -> None:
    """An exercise's first case pays for what PyTorch loads late; counted in the kernel's own computing time."""
    with cell(warm) as kernel:
        kernel.run("import time, torch; begun = time.process_time()")
        said = kernel.run(f"{FIRST_USES[name]}\nprint('seconds', time.process_time() - begun)")
    assert float(said.rpartition("seconds")[2].split()[0]) < 0.5, said


def test_the_provisioner_is_an_entry_point() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    [(name, value)] = groups["jupyter_client.kernel_provisioners"].items()
    assert name == "course-jail"
    assert EntryPoint(name, value, "").load() is provisioner.JailProvisioner


def test_nothing_of_the_course_but_the_library_can_be_imported(kernel: Cell) -> None:
    for name in ("solutions", "course", "autograder"):
        assert kernel.run(f"import {name}") == "ModuleNotFoundError"
    assert kernel.run("import earlier; print(earlier.__file__)").endswith("/earlier.py")
    for options in ("", "-I", "-s"):
        for name in ("solutions", "course", "autograder.checks"):
            assert "ModuleNotFoundError" in kernel.run(f"!python {options} -c 'import {name}'")
    child = "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', 'import earlier; print(6)']))"
    assert kernel.run(child) == r"b'6\n'"


def test_a_course_installed_among_the_packages_is_hidden(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    for name in ("solutions", "harmless"):
        (packages / name).mkdir(parents=True)
        (packages / name / "answers.py").write_text("value = 6")
    monkeypatch.syspath_prepend(packages)
    with light_jail(library) as jail, cell(jail) as kernel:
        assert kernel.run("import harmless.answers; print(harmless.answers.value)") == "6"
        assert kernel.run("import solutions.answers") == "ModuleNotFoundError"


def test_a_kernel_sees_its_own_folder_alone(jail: WarmJail) -> None:
    look = "import os; print(sorted(name for name in os.listdir('/tmp') if name[0] == 'g'), os.environ['FOLDER'])"
    with cell(jail) as one, cell(jail) as other:
        for kernel in (one, other):
            names, folder = kernel.run(look).split()
            assert names == f"['{Path(folder).name}']"


def test_a_kernel_shares_no_pipe_or_socket_with_the_parent(jail: WarmJail, kernel: Cell) -> None:
    [pid] = in_namespace(kernel.run(NAMESPACE))
    others = in_namespace(outer_namespace(jail))
    assert open_channels(pid)
    assert not open_channels(pid) & set().union(*map(open_channels, others))


def test_the_private_tmp_is_limited(kernel: Cell) -> None:
    code = "for n in range(40): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))"
    assert kernel.run(code) == "OSError"
    assert kernel.run("print(1 + 1)") == "2"


def test_a_memory_error_costs_one_cell(kernel: Cell) -> None:
    assert kernel.run("block = bytearray(1 << 30)") == "MemoryError"
    assert kernel.run("print(1 + 1)") == "2"


def test_a_kernel_killed_for_its_memory_is_told_apart_from_a_crash(library: Path) -> None:
    with light_jail(library, NAMES - {"memory"}) as jail:
        with cell(jail) as kernel:
            assert kernel.run("import ctypes; ctypes.string_at(0)") == "dead"
            assert (kernel.kernel.wait(), kernel.kernel.reason) == (-signal.SIGSEGV, "crash")
        with cell(jail) as kernel:
            said = kernel.run(
                "block = bytearray(600 << 20)\nblock[::4096] = b'x' * len(block[::4096])\nprint('through')"
            )
            assert (said, kernel.kernel.reason) == (("dead", "memory") if PRESENT["cgroup"] else ("through", ""))


def test_a_kernel_that_has_used_up_its_time_says_so(kernel: Cell) -> None:
    assert kernel.run("while True: pass") == "dead"
    assert kernel.kernel.reason == "cpu time"


def test_interrupt_ends_an_endless_loop(kernel: Cell) -> None:
    loop = kernel.start("print('started', flush=True)\nwhile True: pass")
    kernel.kernel.interrupt()
    assert "KeyboardInterrupt" in kernel.finish(loop)
    assert kernel.run("print(1 + 1)") == "2"
    assert kernel.kernel.poll() is None


def test_processes_that_a_kernel_has_started_are_counted(kernel: Cell) -> None:
    assert kernel.kernel.companions() == 0
    kernel.run("import subprocess\nchildren = [subprocess.Popen(['sleep', '1000']) for _ in range(3)]")
    assert kernel.kernel.companions() == (3 if PRESENT["cgroup"] else 0)
    kernel.run("for child in children:\n    child.kill()\n    child.wait()")
    assert kernel.kernel.companions() == 0


def test_kill_ends_a_kernel_that_ignores_signals_with_its_daemons(kernel: Cell) -> None:
    code = """
import os, signal, subprocess, time
for number in set(range(1, 65)) - {9, 19, 32, 33}:
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
for _ in range(3):
    if not os.fork():
        os.setsid()
        if os.fork(): os._exit(0)
        time.sleep(1000)
subprocess.Popen(["sleep", "1000"], start_new_session=True)
print(os.readlink("/proc/self/ns/pid"))
"""
    namespace = kernel.run(code)
    assert len(in_namespace(namespace)) >= 5
    kernel.start("print('started', flush=True)\nwhile True: time.sleep(1000)")
    kernel.kernel.interrupt()
    assert kernel.kernel.poll() is None
    kernel.kernel.kill()
    kernel.kernel.wait(30)
    assert kernel.kernel.reason == "killed"
    assert in_namespace(namespace) == set()


COMMANDS = {
    "!echo hi": "hi",
    "!echo hi >&2; exit 3": "hi",
    "!tty": "/dev/pts/0",
    "!stty size": "24 80",
    "said = !echo one; echo two\nprint(list(said))": "['one', 'two']",
    "%%bash\necho from bash": "from bash",
    "%sx echo hi": "",
    "%%capture said\n!echo hi": "",
    "%%python3\nimport numpy; print(numpy.ones(1))": "[1.]",
    "!python -c 'import numpy, earlier; print(earlier.answer())'": "42",
    "%env HOME": "",
    "%pwd": "",
    "%time x = 1": "Wall time",
    "%timeit -n1 -r1 1": "per loop",
    "%pip --version": "pip ",
    "!head -c 200000 /dev/zero | tr '\\0' x | wc -c": "200000",
}


@pytest.mark.parametrize("code", COMMANDS)
def test_commands_behave_as_outside(kernel: Cell, code: str) -> None:
    said = kernel.run(code)
    assert COMMANDS[code] in said
    assert "Error" not in said
    assert kernel.run("print(1 + 1)") == "2"


def test_pip_says_in_its_own_words_that_there_is_nothing_to_install_from(library: Path) -> None:
    with light_jail(library, limits=Limits()) as jail, cell(jail) as kernel:
        begun = time.monotonic()
        said = kernel.run("%pip install nosuchthing")
        assert "No matching distribution found for nosuchthing" in said
        assert "OSError" not in said
        assert time.monotonic() - begun < 15  # it does not try the network again and again
        assert "already satisfied: numpy" in kernel.run("%pip install numpy")


def test_a_command_is_interrupted_like_a_loop(kernel: Cell) -> None:
    running = kernel.start("print('started', flush=True)\n!sleep 1000")
    time.sleep(0.5)
    kernel.kernel.interrupt()
    kernel.finish(running)
    assert kernel.run("print(1 + 1)") == "2"


def test_no_terminal_of_another_is_in_reach(jail: WarmJail, kernel: Cell) -> None:
    ours, theirs = os.openpty()
    try:
        look = f"import os; print(os.path.exists({os.ttyname(theirs)!r}), os.listdir('/dev/pts'))"
        assert kernel.run(look) == "False ['ptmx']"
        with cell(jail) as other:
            assert other.run("import os; pair = os.openpty(); print(os.ttyname(pair[1]))") == "/dev/pts/0"
            assert kernel.run("open('/dev/pts/0')") == "FileNotFoundError"
            assert kernel.run("open('/dev/tty')") == "FileNotFoundError"
    finally:
        os.close(ours)
        os.close(theirs)


def test_terminals_are_few(kernel: Cell) -> None:
    code = "import os\nmany = []\nwhile len(many) < 200: many.append(os.openpty())"
    assert kernel.run(code) == "OSError"
    assert kernel.run("print(len(many) <= 32); [os.close(end) for pair in many for end in pair]").startswith("True")
    assert kernel.run("!echo hi") == "hi"


def test_where_there_can_be_no_terminal_commands_run_through_pipes(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = shutil.copytree(Path(bubblewrap.__file__).parent / "inside", tmp_path / "inside")
    tmp_path.chmod(0o755)
    root = inside / "root.py"
    root.write_text(root.read_text().replace('"devpts", flags', '"a system that Linux has not", flags'))
    monkeypatch.setattr(bubblewrap, "__file__", str(tmp_path / "bubblewrap.py"))
    with light_jail(library) as jail, cell(jail) as kernel:
        assert kernel.run("import os; print(os.path.exists('/dev/ptmx'))") == "False"
        assert kernel.run("!echo one; echo two >&2; exit 3\nprint(_exit_code)") == "one\ntwo\n3"
        assert kernel.run("%pip --version").startswith("pip ")


def open_files() -> int:
    gc.collect()  # closes what belongs to clients that are gone
    return len(list(Path("/proc/self/fd").iterdir()))


GRADER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from jupyter_core.utils import run_sync
from jail import cell, light_jail, outer_namespace
with light_jail(Path({library!r}), folders=Path({folders!r})) as jail, cell(jail) as kernel:
    print(kernel.run("import os; print(os.readlink('/proc/self/ns/pid'))"), flush=True)
    print(outer_namespace(jail), flush=True)
    sys.stdin.read()
"""


def test_a_killed_grader_leaves_no_process_behind(library: Path, tmp_path: Path) -> None:
    code = GRADER.format(path=[str(ROOT), str(ROOT / "tests"), *sys.path], library=str(library), folders=str(tmp_path))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as grader:
        assert grader.stdout is not None
        namespaces = [grader.stdout.readline().strip(), grader.stdout.readline().strip()]
        left = [os.pidfd_open(pid) for name in namespaces for pid in in_namespace(name)]
        assert len(left) >= 3  # the kernel, the parent, and the first process of the outer jail
        grader.kill()
    for descriptor in left:
        assert select.select([descriptor], [], [], 30)[0], "a process outlives the grader"
        os.close(descriptor)


def test_many_kernels_leave_nothing_behind(library: Path, tmp_path: Path) -> None:
    folders = tmp_path.resolve()
    with light_jail(library, folders=folders) as jail:

        def state() -> dict[str, object]:
            members = in_namespace(outer_namespace(jail))
            return {
                "mounts": Path("/proc/self/mountinfo").read_text().count("\n"),
                "mounts of the jail": Path(f"/proc/{max(members)}/mountinfo").read_text().count("\n"),
                "processes, zombies too": len(members),
                "groups": [str(path) for path in Path("/sys/fs/cgroup").rglob(f"course-jail-{os.getpid()}-*")],
                "folders": list(folders.iterdir()),
            }

        with cell(jail):
            pass
        before, files = state(), open_files()
        for _ in range(20):
            with cell(jail):
                pass
        assert state() == before
        assert open_files() <= files
        assert before["groups"] == before["folders"] == []
        assert before["processes, zombies too"] == 2  # the first process and the parent


def test_a_library_that_starts_a_thread_is_refused(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='busy').start()\n"
    )
    with pytest.raises(JailError, match=r"thread that does not end \(busy\)"):
        WarmJail(tmp_path, imports=LIGHT).start()


def test_a_folder_that_the_jail_does_not_show_is_refused(jail: WarmJail) -> None:
    with pytest.raises(ValueError, match="is not below"):
        jail.spawn(Path("/var/tmp"))


def test_closing_the_jail_ends_its_kernels(library: Path) -> None:
    jail = WarmJail(library, SMALL, imports=LIGHT)
    jail.start()
    with cell(jail) as kernel:
        namespace = kernel.run(NAMESPACE)
        jail.close()
        assert in_namespace(namespace) == set()
        assert kernel.kernel.poll() is not None
    assert not jail.alive


def bubblewrap_that_fails(folder: Path) -> str:
    """A PATH on which bubblewrap cannot make network namespaces, as where Linux forbids them."""
    program = folder / "bwrap"
    program.write_text(
        '#!/bin/sh\ncase " $* " in *" --unshare-net "*) echo "bwrap: no permissions" >&2; exit 1;; esac\n'
        f'exec {shutil.which("bwrap")} "$@"\n'
    )
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_without_isolation_nothing_starts(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", bubblewrap_that_fails(tmp_path))
    with pytest.raises(JailError, match=r"no permissions.*course doctor"):
        WarmJail(library).start()
    result = CliRunner().invoke(doctor)
    assert result.exit_code == 1
    assert "cannot be isolated here: network missing" in result.output


def test_without_bubblewrap_the_package_is_named(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(JailError, match="apt install bubblewrap"):
        WarmJail(library).start()


def test_the_doctor_finds_every_layer_that_grading_needs() -> None:
    result = CliRunner().invoke(doctor)
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in NAMES)

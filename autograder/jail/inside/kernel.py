"""Become an ordinary ipykernel in this very process."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def start(connection_file: str, ready: int) -> None:
    """Run a kernel until it is shut down.

    Args:
        connection_file: says where its sockets are.
        ready: a pipe; "ready" is written to it when the sockets answer, before any cell can run.
    """
    import numpy as np
    import zmq
    from ipykernel import zmqshell
    from ipykernel.kernelapp import IPKernelApp

    tempfile.tempdir = None  # the parent's is not seen from here
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # the parent's own log is not for students
        os.dup2(nowhere, standard)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    np.random.seed()  # otherwise every fork of one parent draws the same numbers
    sys.argv = ["ipykernel"]

    class App(IPKernelApp):
        """A kernel that keeps its outputs until they are read, in its own memory, instead of dropping some."""

        def init_iopub(self, context: Any) -> None:
            context.setsockopt(zmq.SNDHWM, 0)
            super().init_iopub(context)  # type: ignore[no-untyped-call]

    app: Any = App.instance(connection_file=connection_file)
    app.initialize(["--HistoryManager.enabled=False", "--IPKernelApp.parent_handle=0"])
    if not Path("/dev/ptmx").exists():
        vars(zmqshell)["system"] = run_through_pipes
    os.write(ready, b"ready")
    os.close(ready)
    app.start()


def run_through_pipes(command: str) -> int:
    """Run a shell command and print what it says: IPython's `!` where there is no terminal to run it in."""
    with subprocess.Popen(
        command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line.decode(errors="replace"), end="", flush=True)
    return running.returncode

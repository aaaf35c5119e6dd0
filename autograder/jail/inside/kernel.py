"""Become an ordinary ipykernel in this very process."""

import os
import signal
import sys
import tempfile
from typing import Any


def start(connection_file: str, ready: int) -> None:
    """Run a kernel until it is shut down.

    Args:
        connection_file: says where its sockets are.
        ready: a pipe; "ready" is written to it when the sockets answer, before any cell can run.
    """
    import numpy as np
    import zmq
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
    os.write(ready, b"ready")
    os.close(ready)
    app.start()

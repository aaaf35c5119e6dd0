"""Become an ordinary ipykernel in this very process."""

import os
import signal
import sys
import tempfile


def start(connection_file: str, ready: int) -> None:
    """Run a kernel until it is shut down.

    Args:
        connection_file: says where its sockets are.
        ready: a pipe; "ready" is written to it when the sockets answer, before any cell can run.
    """
    import numpy as np
    from ipykernel.kernelapp import IPKernelApp

    tempfile.tempdir = None  # the parent's is not seen from here
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # the parent's own log is not for students
        os.dup2(nowhere, standard)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    np.random.seed()  # otherwise every fork of one parent draws the same numbers
    sys.argv = ["ipykernel"]
    app = IPKernelApp.instance(connection_file=connection_file)
    app.initialize(["--HistoryManager.enabled=False", "--IPKernelApp.parent_handle=0"])
    os.write(ready, b"ready")
    os.close(ready)
    app.start()

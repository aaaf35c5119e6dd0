"""One jailed kernel, as the host sees it."""

import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from autograder.jail.cgroups import Group


class JailedKernel:
    """One kernel in the jail; made by `WarmJail.spawn`.

    Attributes:
        uid: its user; what it is to use in its folder must belong to this user or be open to all.
        reason: why it has ended: "memory", "cpu time", "crash", "exit" or "killed" (by `kill`); empty while it runs.
    """

    def __init__(
        self,
        number: int,
        uid: int,
        lease: socket.socket,
        group: Group | None,
        cpu_limit: int,
        send: Callable[[dict[str, Any]], None],
        listen: Callable[[float | None], None],
    ) -> None:
        """Note what belongs to the kernel, and how to reach the jail."""
        self.number = number
        self.uid = uid
        self.reason = ""
        self._lease = lease
        self._group = group
        self._cpu_limit = cpu_limit
        self._send = send
        self._listen = listen
        self._status: int | None = None
        self._killed = False

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        if self._status is None:
            self._listen(0)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; raises TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"the kernel still runs after {timeout} seconds.")
            self._listen(left)
        return status

    def companions(self) -> int:
        """How many processes that it has started still run; 0 where there is no cgroup to count them."""
        return max(0, self._group.processes() - 1) if self._group is not None and self.poll() is None else 0

    def cpu_seconds(self) -> float | None:
        """The processor's time that its processes have taken; None where there is no cgroup to find them by."""
        return self._group.cpu_seconds() if self._group is not None and self.poll() is None else None

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running cell."""
        self.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill it with everything that it has started."""
        if self.poll() is None:
            self._killed = True
            self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel's process."""
        if self.poll() is None:
            self._send({"do": "signal", "number": self.number, "signal": int(number)})

    def ended(self, status: int, cpu_seconds: float = 0) -> None:
        """Note how it has ended and give back what it held; called by the jail."""
        self.reason = self._why(status, cpu_seconds)
        self._lease.close()
        if self._group is not None:
            self._group.remove()
        self._status = status

    def _why(self, status: int, cpu_seconds: float) -> str:
        if self._killed:
            return "killed"
        if status == -signal.SIGKILL and self._group is not None and self._group.memory_kills():
            return "memory"
        if status == -signal.SIGKILL and cpu_seconds > 0.9 * self._cpu_limit:  # clocks differ
            return "cpu time"
        return "exit" if status == 0 else "crash"

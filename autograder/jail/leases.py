"""User ids for kernels: no two kernels on this machine have the same one at the same time."""

import random
import socket

_UIDS = range(60000, 65000)  # of no account


def lease_uid() -> tuple[int, socket.socket] | None:
    """A user id and the socket that holds it until that is closed; None if all are taken."""
    first = random.randrange(len(_UIDS))
    for step in range(len(_UIDS)):
        uid = _UIDS[(first + step) % len(_UIDS)]
        lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lease.bind(f"\0course-jail user {uid}")  # the kernel gives a name to one socket only
        except OSError:
            lease.close()
        else:
            return uid, lease
    return None

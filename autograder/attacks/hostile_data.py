"""Attempts on the grader by what a notebook holds or its kernel sends: they cost the exercise in which they are made.

Nobody else loses anything by them, and the grader stays small.
"""

import textwrap

from autograder.attacks.handed import TOTAL, Handed, beside, first, replace

ALONE = "It costs softmax alone; the others are solved."
LEFT_OUT = "The cell is left out, or is as good as empty; everything is solved."

_REPLIES = """
import os, socket, struct
import autograder
from autograder.wire import decode, encode

_honest = check
def check(name, target, graded=False):
    if name != "attention.softmax":
        return _honest(name, target, graded=graded)
    judge = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    judge.connect(os.environ["COURSE_JUDGE"])
    def send(message):
        judge.sendall(struct.pack("!Q", len(message)) + message)
    def receive():
        size = struct.unpack("!Q", judge.recv(8, socket.MSG_WAITALL))[0]
        return judge.recv(size, socket.MSG_WAITALL)
    send(encode({"exercise": name, "kind": "function"}))
    receive()
    while receive():
        send(REPLY)
"""


def _replies(name: str, what: str, reply: str) -> Handed:
    """A notebook whose check of softmax answers each case with this message."""
    return Handed(name, what, TOTAL - 2, ALONE, first(_REPLIES.strip().replace("REPLY", reply)), solved=True)


def _own(name: str, what: str, code: str, harmful: bool = False) -> Handed:
    return Handed(name, what, TOTAL, LEFT_OUT, first(textwrap.dedent(code).strip("\n")), solved=True, harmful=harmful)


_MESSAGE = """(lambda body: (lambda head: struct.pack("<Q", len(head)) + head + body)(
            ('{"json":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (len(body), len(body))).encode()))"""
_SEND = "session, socket = get_ipython().kernel.session, get_ipython().kernel.iopub_socket"

DATA: list[Handed] = [
    _own("wide-line", "A line of 49,000 spaces, for whoever reads lines with patterns.", " " * 49_000 + "x y"),
    _own("many-brackets", "Brackets as deep as a cell may be long.", "(" * 49_000),
    _own("many-strings", "A cell of nothing but quotes.", "f'{" * 16_000),
    _replies("long-reply", "Answers with 120 MB of arrays.", "bytes(120 * 2**20)"),
    _replies("long-number", "Says that its answer has 2**62 bytes.", "b'x' * 0 or judge.sendall(b'\\x40' + bytes(7))"),
    _replies(
        "crowded-reply", "Answers with millions of empty lists.", _MESSAGE + "(b'[' + b'[],' * 4_000_000 + b'0]')"
    ),
    _replies("deep-reply", "Answers with lists in lists without end.", _MESSAGE + "(b'[' * 4_000_000)"),
    _replies(
        "many-arrays",
        "Answers with a quarter of a million empty arrays.",
        """(lambda head: struct.pack("<Q", len(head)) + head)(
            ("{" + ",".join('"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % n for n in range(250_000)) + "}"
            ).encode())""",
    ),
    _own(
        "status-flood",
        "Says 200,000 times that it is busy.",
        f"""
        {_SEND}
        parent = get_ipython().kernel.get_parent()
        for _ in range(200_000):
            session.send(socket, "status", {{"execution_state": "busy"}}, parent=parent)
        """,
    ),
    _own(
        "foreign-flood",
        "Sends 200,000 messages that answer nobody.",
        f"""
        {_SEND}
        for _ in range(200_000):
            session.send(socket, "stream", {{"name": "stdout", "text": "x" * 1000}}, parent={{"msg_id": "nobody"}})
        """,
    ),
    _own(
        "comm-flood",
        "Opens widgets without end, each with a state of a megabyte.",
        f"""
        {_SEND}
        parent = get_ipython().kernel.get_parent()
        for n in range(300):
            content = {{"comm_id": str(n), "data": {{"state": {{"x": "y" * 2**20}}, "buffer_paths": []}}}}
            session.send(socket, "comm_msg", content, parent=parent)
        """,
    ),
    _own(
        "metadata-flood",
        "Hides 120 MB in the metadata of an output.",
        """
        from IPython.display import display
        display({"text/plain": "x"}, raw=True, metadata={"x": "y" * (120 * 2**20)})
        """,
    ),
    _own(
        "values-flood",
        "Shows a table of millions of empty lists.",
        """
        from IPython.display import display
        display({"application/json": [[]] * 1_200_000}, raw=True)
        """,
    ),
    _own(
        "malformed-messages",
        "Sends what no kernel says: contents of other types, outputs without their parts, unknown kinds.",
        f"""
        {_SEND}
        parent = get_ipython().kernel.get_parent()
        for kind in ("stream", "display_data", "execute_result", "error", "update_display_data", "clear_output",
                     "comm_open", "comm_msg", "status", "execute_input", "nonsense"):
            for content in ({{}}, {{"data": 3}}, {{"data": {{"text/plain": {{}}}}, "transient": 7}},
                            {{"name": [], "text": 1}}, {{"execution_state": {{}}}}, {{"traceback": "x", "ename": None}},
                            {{"execution_count": "many"}},
                            {{"data": {{"image/png": 4}}, "metadata": [], "transient": {{"display_id": []}}}}):
                session.send(socket, kind, content, parent=parent)
        """,
    ),
    _own(
        "not-a-message",
        "Writes to the socket of outputs itself.",
        """
        from ipykernel.iostream import IOPubThread
        kernel = get_ipython().kernel
        kernel.iopub_thread.send_multipart([b"x", b"<IDS|MSG>", b"bad", b"{", b"[", b"", b"nothing"])
        """,
    ),
    _own(
        "spinners",
        "Starts forty processes that compute for ever.",
        """
        import os
        for _ in range(40):
            if os.fork() == 0:
                while True:
                    pass
        """,
        harmful=True,
    ),
    _own(
        "alarm-clock",
        "Ends the process three seconds later, when something else runs.",
        "import os, threading\nthreading.Timer(3, os._exit, [1]).start()",
    ),
    _own(
        "stops-the-loop", "Stops the loop in which the kernel waits.", "import asyncio\nasyncio.get_event_loop().stop()"
    ),
    _own("exit-in-own-cell-by-name", "A cell of the student's own calls `exit()`.", "exit()"),
    _own("quit-in-own-cell", "A cell of the student's own calls `quit()`.", "quit()"),
    Handed(
        "exit-below-solution",
        "Calls `exit()` below the definition of softmax.",
        TOTAL - 2,
        ALONE,
        beside("softmax", after="exit()"),
        solved=True,
    ),
    Handed(
        "exit-in-solution",
        "Calls `exit()` in softmax.",
        TOTAL - 2,
        ALONE,
        replace("softmax", "def softmax(x, dim=-1):\n    exit()"),
        solved=True,
    ),
]

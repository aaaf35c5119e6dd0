"""What one kernel may use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one kernel may use. Bytes and seconds."""

    memory: int = 2 << 30
    processes: int = 64
    file_size: int = 256 << 20
    tmp: int = 512 << 20
    cpu_seconds: int = 1800

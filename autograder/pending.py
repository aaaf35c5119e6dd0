"""Stands where a definition of the graded chapter will stand once its exercise has been judged."""

from typing import Any


class Pending:
    """A definition that is not there yet; afterwards it does what the reference does.

    What the chapter gives may use an exercise's result: `make_norm`, for example, makes a LayerNorm.
    """

    def __init__(self, name: str) -> None:
        """Remember what is waited for, as `module.symbol`."""
        self._name = name
        self._actual: Any = None

    def become(self, actual: Any) -> None:
        """Hand over to the real thing."""
        self._actual = actual

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the real thing.

        Raises:
            NotImplementedError: it is not there yet.
        """
        if self._actual is None:
            raise NotImplementedError(f"the course's {self._name} is there only after its exercise has been graded")
        return self._actual(*args, **kwargs)

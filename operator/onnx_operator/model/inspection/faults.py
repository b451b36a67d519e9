"""How a parsing child fails that says nothing about the model."""

import os


class ParserError(Exception):
    """The parsing process has a fault of its own: nothing is known about the model."""


class ForbiddenCallError(ParserError):
    """The parsing child made a system call that its filter does not allow; ``number`` is that call's, where known.

    A library needs a call that nobody foresaw, or what was parsed took over the child. The call was not made.
    """

    def __init__(self, number: int | None) -> None:
        self.number = number
        which = f"the system call {number}" if number is not None else "a system call"
        super().__init__(
            f"the parsing child made {which} ({os.uname().machine}) that it may not make, and was ended. Nothing is"
            " known about the model. Please report it with the model: the list of calls may lack one, or the file is"
            " an attack."
        )

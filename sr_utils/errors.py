"""The one exception for mistakes that the person running the project can mend, and what an entry point makes of it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in a parameter, a file or a folder.

    The message is one sentence that names what is wrong, where, and how to mend it. Entry points show the
    message without a traceback; anything else that is raised is a defect of the project.
    """

    def __init__(self, message: str):
        # A file's name may hold line breaks; the sentence stays one line.
        super().__init__(" ".join(message.splitlines()))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback; papermill and nbclient still see the error."""
        return [f"{type(self).__name__}: {self}"]


@contextmanager
def told_in_one_sentence() -> Iterator[None]:
    """Around an entry point: a `UserError` ends the program with its sentence and status 1, Ctrl-C with 130."""
    try:
        yield
    except UserError as error:
        # Of the processes of one training, the first one of each machine speaks.
        sys.exit(f"error: {error}" if os.environ.get("LOCAL_RANK", "0") == "0" else 1)
    except KeyboardInterrupt:
        sys.exit(130)

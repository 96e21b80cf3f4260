"""The one exception for mistakes that the person running the project can mend."""


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

"""The one exception for mistakes that the person running the project can mend."""


class UserError(ValueError):
    """A mistake in a parameter, a file or a folder.

    The message is one sentence that names what is wrong, where, and how to mend it. Entry points show the
    message without a traceback; anything else that is raised is a defect of the project.
    """

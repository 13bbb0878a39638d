"""The root of this package's errors: what is wrong with an input, in words for its user."""


class InputError(Exception):
    """A fault of input that the user can mend; the command line tells it without a traceback."""

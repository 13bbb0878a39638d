"""The root of this package's errors: what is wrong with an input, in words for its user."""

LINE = 2000  # characters of a message; what a file claims of itself may be of any length


class InputError(Exception):
    """A fault of input that the user can mend; the command line tells it without a traceback."""


class ArtifactError(InputError):
    """An artifact cannot be read, written or used; the message names file, fault and remedy."""


NO_THREAD = "could not start a thread to read it; free memory, or allow more processes (ulimit -u)"


def is_no_thread(error: Exception) -> bool:
    """True if Arrow could not start a thread, which says nothing of the file that it was to read.

    Arrow raises no class of its own for it.
    """
    return "launch worker thread" in str(error)


def line(message: object) -> str:
    """The message in one line that any terminal can show: whatever is not printable is escaped."""
    text = " ".join(str(message).splitlines())  # Arrow's messages have several
    if len(text) > LINE:
        text = f"{text[: LINE // 2]} … {text[-LINE // 2 :]}"
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()

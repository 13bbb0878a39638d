"""Whatever a reader does in the child is one error here, in time, within memory, and named."""

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from rdmdc.errors import ArtifactError, InputError
from rdmdc.storage.guarded import allow, guarded, reading_now

# --- what runs in the child ------------------------------------------------------------------


def echo(*values):
    print("this is no answer")
    return repr(values).encode()


def nothing():
    pass


def large(size):
    return b"x" * size


def refuses(message):
    raise InputError(message)


def a_bug():
    return [][0]


def dies(number, places):
    for place in places:
        reading_now(place)
    os.kill(os.getpid(), number)


def leaves(code):
    os._exit(code)


def aborts_aloud():
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n\x1b[2J")
    os.write(1, b"\x1b[2J")
    os.abort()


def takes(megabytes, allowed=0):
    allow(allowed << 20)
    return str(len(bytes(megabytes << 20))).encode()


def sleeps(marker):
    if marker:
        open(marker, "w").close()
    time.sleep(60)


# --- what is told here -----------------------------------------------------------------------


def run(function, *arguments, megabytes=64, seconds=20):
    return guarded(
        function,
        *arguments,
        megabytes=megabytes,
        seconds=seconds,
        error=ArtifactError,
        place="a file",
        remedy="delete it",
    )


def test_results_come_back_as_bytes():
    assert (
        run(echo, "a\nb ä", [1, None], {"c": 0.1})
        == repr(("a\nb ä", [1, None], {"c": 0.1})).encode()
    )
    assert run(nothing) == b""
    assert run(large, 10_000_000) == b"x" * 10_000_000


def test_a_refusal_is_told_in_one_line_of_bounded_length():
    with pytest.raises(ArtifactError, match=r"^no good$"):
        run(refuses, "no good")
    with pytest.raises(ArtifactError) as caught:
        run(refuses, "\x1b[2J\n" + 10**6 * "x")
    assert len(str(caught.value)) < 2100 and str(caught.value).isprintable()


def test_a_bug_is_told_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"in a_bug(.|\n)*IndexError"):
        run(a_bug)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
@pytest.mark.parametrize(("places", "place"), [([], "a file"), (["b", "c"], "c")])
def test_crashes(number, places, place):
    fault = f"{place}: damaged, its reader crashed ({number.name}); delete it"
    with pytest.raises(ArtifactError, match=f"^{re.escape(fault)}$"):
        run(dies, number, places)


def test_a_child_that_the_system_kills():
    with pytest.raises(ArtifactError, match=r"a file: its reader was killed, .*; delete it"):
        run(dies, signal.SIGKILL, [])


def test_an_end_without_an_answer():
    with pytest.raises(ArtifactError, match=r"its reader crashed \(exit code 3\); delete it"):
        run(leaves, 3)


def test_a_crash_says_nothing_on_the_terminal(capfd):
    with pytest.raises(ArtifactError, match="SIGABRT"):
        run(aborts_aloud)
    assert capfd.readouterr() == ("", "")


def test_memory():
    assert run(takes, 40) == b"41943040"
    with pytest.raises(ArtifactError, match="a file: needs more than 64 MB of memory to be"):
        run(takes, 80)
    assert run(takes, 80, 40) == b"83886080"
    here = resource.getrlimit(resource.RLIMIT_DATA)
    allow(1 << 20)  # concerns a child only
    reading_now("nothing")
    assert resource.getrlimit(resource.RLIMIT_DATA) == here


def test_time():
    began = time.monotonic()
    with pytest.raises(ArtifactError, match="a file: could not be read within 1 s; delete it"):
        run(sleeps, None, seconds=1)
    assert time.monotonic() - began < 5


def test_the_child_starts_at_once_and_imports_little():
    began = time.monotonic()
    run(nothing)  # of this module, whose imports are pytest's
    assert time.monotonic() - began < 3
    code = "import sys, rdmdc.storage.rows; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


PARENT = """
import sys
from rdmdc.errors import ArtifactError
from rdmdc.storage.guarded import guarded
from test_guarded import sleeps
guarded(sleeps, sys.argv[1], megabytes=64, seconds=60, error=ArtifactError, place="", remedy="")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_child_ends_with_its_parent(tmp_path, monkeypatch, number):
    """A job that is killed must not go on to write its artifact."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    marker = tmp_path / "started"
    command = [sys.executable, "-c", PARENT, str(marker)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as parent:
        while not marker.exists():
            time.sleep(0.05)
        assert len(members(parent.pid)) == 2
        parent.send_signal(number)
        parent.wait()
        for _ in range(100):
            if not members(parent.pid):
                return
            time.sleep(0.05)
        pytest.fail("the child goes on")


def members(session):
    """The processes of a session."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True
    )
    return listed.stdout.split()

"""Functions that read strangers' files, run in a child process with limits on memory and time.

A damaged or hostile file can crash its reader, claim gigabytes or keep it busy for ever. In a child
each of these ends the child alone, and becomes one error that names the file. The function's name
and arguments go to the child as JSON, its result comes back as bytes: nothing is unpickled. The
child ends when its parent does.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from rdmdc.errors import InputError, line

_answer: IO[bytes] | None = None  # in a child, where its parent listens


def guarded(
    function: Callable[..., bytes | None],
    *arguments: Any,
    megabytes: int,
    seconds: float,
    error: type[InputError],
    place: object,
    remedy: str,
) -> bytes:
    """Run a module's function in a child process and return its bytes; JSON carries the arguments.

    The child may allocate that many megabytes beyond what its imports take, the result included. An
    InputError in the child is raised here as ``error``. Where the child crashes, takes too long or
    needs more memory, ``error`` names the place that the function last gave to ``reading_now``
    (``place`` if none) and the remedy. Any other exception becomes a RuntimeError.
    """
    request = [function.__module__, function.__qualname__, arguments, megabytes]
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # libraries that crash print here
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "ARROW_DEFAULT_MEMORY_POOL": "system",  # Arrow's own reserves a GB at once
        },
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, end)
    with child:
        timer.start()
        try:
            place, said, result = _listen(child, json.dumps(request), place)
            child.wait()
        finally:
            timer.cancel()
            child.kill()
    if "refused" in said:
        raise error(said["refused"])
    if "failed" in said:
        raise RuntimeError(said["failed"])
    if "result" in said and len(result) == said["result"]:
        return result
    if late.is_set():
        fault = f"could not be read within {seconds:.0f} s"
    elif "memory" in said:
        fault = f"needs more than {megabytes} MB of memory to be read"
    elif child.returncode == -signal.SIGKILL:
        fault = "its reader was killed, as happens where the machine's memory runs out"
    else:
        fault = f"damaged, its reader crashed ({_ending(child.returncode)})"
    raise error(f"{place}: {fault}; {remedy}")


def _listen(
    child: subprocess.Popen[bytes], request: str, place: object
) -> tuple[object, dict[str, Any], bytes]:
    """The last place that the child named, its last line, and the bytes after that."""
    assert child.stdin is not None and child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.write(f"{request}\n".encode())
        child.stdin.flush()  # and left open: the child ends when it is closed
    for text in child.stdout:
        with suppress(ValueError):  # half a line of a child that crashed
            said = json.loads(text)
            if "reading" not in said:
                return place, said, child.stdout.read(said.get("result", 0))
            place = said["reading"]
    return place, {}, b""


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# --- the child -------------------------------------------------------------------------------


def reading_now(place: object) -> None:
    """Tell the parent what is read from here on, to name if this crashes; only in a child."""
    if _answer is not None:
        _say({"reading": str(place)})


def allow(more: int) -> None:
    """Let the child allocate that many more bytes; it has an effect in a child only."""
    if _answer is not None:
        limit, most = resource.getrlimit(resource.RLIMIT_DATA)
        if limit != resource.RLIM_INFINITY:
            _set_limit(limit + more, most)


def _say(content: dict[str, Any], more: bytes = b"") -> None:
    assert _answer is not None
    _answer.write(json.dumps(content).encode() + b"\n" + more)
    _answer.flush()


def _serve() -> None:
    """Answer the one request on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent gets it too, and tells
    module, name, arguments, megabytes = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.disable()  # a child is short, and imports are slower with it
    function = getattr(import_module(module), name)
    _limit(megabytes)
    try:
        result = function(*arguments) or b""
        _say({"result": len(result)}, result)
    except InputError as error:
        _say({"refused": line(error)})
    except MemoryError:
        _say({"memory": megabytes})
    except Exception:
        _say({"failed": traceback.format_exc()})


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _limit(megabytes: int) -> None:
    """Limit the memory that this process can allocate from here on; on Linux only."""
    with suppress(FileNotFoundError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        wanted = pages * resource.getpagesize() + (megabytes << 20)
        _set_limit(wanted, resource.getrlimit(resource.RLIMIT_DATA)[1])


def _set_limit(wanted: int, most: int) -> None:
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


if __name__ == "__main__":
    from rdmdc.storage import guarded as _self  # the module that the function's imports see

    _self._answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    _self._serve()
    os._exit(0)  # no destructors of libraries, which may crash

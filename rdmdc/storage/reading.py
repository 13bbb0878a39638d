"""What every reader shares: how its faults become an ArtifactError, and what is read of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rdmdc.errors import NO_THREAD, ArtifactError, InputError, is_no_thread

LARGEST = 1 << 22  # bytes of a sidecar, or of an artifact's metadata, that are read


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every fault of a reader into an ArtifactError that names the file and a remedy."""
    remedy = "delete it and run snakemake again"
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; run snakemake to make it") from error
    except PermissionError as error:
        raise ArtifactError(f"{path}: may not be read; mend its permissions") from error
    except MemoryError as error:
        raise ArtifactError(
            f"{path}: too little memory to read it ({error}); give the job more, or {remedy}"
        ) from error
    except ArtifactError:
        raise
    except InputError as error:
        raise ArtifactError(f"{path}: {error}; {remedy}") from error
    except KeyError as error:
        raise ArtifactError(f"{path}: damaged or of another kind (no {error}); {remedy}") from error
    except Exception as error:  # readers of damaged files raise nearly anything
        if is_no_thread(error):
            raise ArtifactError(f"{path}: {NO_THREAD} ({error})") from error
        raise ArtifactError(f"{path}: damaged or of another kind ({error}); {remedy}") from error


def check_regular(path: Path) -> None:
    """Raise ValueError for what is no regular file: reading a pipe or a device might not end."""
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")


def content(path: Path) -> bytes:
    """All bytes of a regular file; ValueError where it is larger than LARGEST."""
    check_regular(path)
    with open(path, "rb") as file:
        found = file.read(LARGEST + 1)
    if len(found) > LARGEST:
        raise ValueError(f"larger than {LARGEST} bytes")
    return found

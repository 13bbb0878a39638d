"""Which form a data set has, and where its training and its test split are.

A folder of class folders; one with such a folder for each split; Parquet files, or a folder of them
as the Hugging Face hub has it; what `datasets.Dataset.save_to_disk` wrote; an ``.npz``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rdmdc.datasets.split import DatasetError

TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev")
WANTED = (
    "a folder of class folders, a .parquet file or a folder of them, a saved Hugging Face dataset"
    " or an .npz file"
)
CLUTTER = ("Thumbs.db", "desktop.ini", "__MACOSX")


@dataclass(frozen=True)
class Place:
    """A form, and the files or the folder of each split; the test split may be missing."""

    form: str
    train: tuple[Path, ...]
    test: tuple[Path, ...]


def recognise(data: Path) -> Place:
    """The form of a data set; DatasetError says which there are."""
    if data.is_dir():
        return _folder(data)
    if not data.exists():
        raise DatasetError(f"{data}: no such file or folder; name {WANTED}")
    forms = {".npz": "npz", ".parquet": "parquet", ".arrow": "arrow"}
    if data.suffix.lower() not in forms:
        raise DatasetError(f"{data}: not a data set that is known here; name {WANTED}")
    return Place(forms[data.suffix.lower()], (data,), ())


def listing(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden files and what desktops leave behind."""
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if not path.name.startswith(".") and path.name not in CLUTTER
        )
    except OSError as error:
        raise DatasetError(
            f"{folder}: cannot be read ({error.strerror}); mend its permissions"
        ) from error


def _folder(data: Path) -> Place:
    if (data / "dataset_dict.json").is_file():
        parts = {path.name: path for path in listing(data) if path.is_dir()}
        train, test = _pair(data, parts)
        return Place("arrow", _arrow(train), _arrow(test) if test else ())
    if (data / "state.json").is_file():
        return Place("arrow", _arrow(data), ())
    inside = listing(data)
    below = listing(data / "data") if (data / "data").is_dir() else []
    files = [path for path in inside if path.suffix == ".parquet"] or [
        path for path in below if path.suffix == ".parquet"
    ]
    if files:
        return _parquet(files)
    folders = {path.name: path for path in inside if path.is_dir()}
    if folders and set(folders) <= {*TRAINING, *HELD_OUT} and set(folders) & set(TRAINING):
        train, test = _pair(data, folders)
        return Place("folder", (train,), (test,) if test else ())
    return Place("folder", (data,), ())


def _pair(data: Path, parts: dict[str, Path]) -> tuple[Path, Path | None]:
    """The training and the test split among folders named after splits."""
    train = [parts[name] for name in TRAINING if name in parts]
    if not train:
        raise DatasetError(
            f"{data}: its splits are {', '.join(parts) or 'none'}, none is named train; name the"
            " folder of the split that is to be read"
        )
    return train[0], next((parts[name] for name in HELD_OUT if name in parts), None)


def _parquet(files: list[Path]) -> Place:
    """Files of the training split by their names, as the hub has them; all files without them."""
    named = [path for path in files if path.name.startswith(TRAINING)]
    train = named or [path for path in files if not path.name.startswith(HELD_OUT)]
    if not train:
        raise DatasetError(f"{files[0].parent}: no file of a training split; name a file")
    for name in HELD_OUT:
        test = [path for path in files if path.name.startswith(name)]
        if test:
            return Place("parquet", tuple(train), tuple(test))
    return Place("parquet", tuple(train), ())


def _arrow(folder: Path) -> tuple[Path, ...]:
    """The files of a saved dataset, in their order."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        return tuple(folder / Path(entry["filename"]).name for entry in state["_data_files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder / 'state.json'}: not that of a saved dataset ({error!r}); save it again by"
            " save_to_disk"
        ) from error

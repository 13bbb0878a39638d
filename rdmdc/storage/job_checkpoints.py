"""Checkpoints: a long job saves its state every few minutes and can resume from it if inputs,
options and code are unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import safetensors
import safetensors.torch
import torch

from rdmdc.checkpoints import State
from rdmdc.storage.provenance import PARTIAL

KEY = "rdmdc"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class JobCheckpoints:
    """A job's checkpoints in a hidden file beside an output, from ``with`` until the job is done.

    ``identity`` is all that decides the bits: a checkpoint with another is refused, as is a damaged
    one; stderr gets the reason, and the job starts afresh. SIGUSR1 saves at the next step, SIGTERM
    saves at the next step and ends the process with exit code 143. A job that ends well deletes
    its checkpoint; one that fails leaves it. A checkpoint that cannot be written stops no job.
    """

    def __init__(self, output: Path, minutes: float, identity: Mapping[str, Any]) -> None:
        self.path = output.with_name(f".{output.name}.checkpoint")
        self.partial = self.path.with_name(f"{self.path.name}{PARTIAL}")
        self.seconds = 60 * minutes
        self.identity = json.loads(json.dumps(identity))  # as it is read back
        self.asked: set[int] = set()
        self.due = time.monotonic() + self.seconds

    def __enter__(self) -> JobCheckpoints:
        def ask(number: int, frame: FrameType | None) -> None:
            self.asked.add(number)

        self.before = {number: signal.signal(number, ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is None:
            self.partial.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def resume(self) -> State | None:
        """The state of the checkpoint, None where there is none to be used."""
        try:
            identity, state = read(self.path)
        except FileNotFoundError:
            return None
        except Exception as error:  # readers of damaged files raise nearly anything
            reason = f"damaged ({' '.join(str(error).split())})"
        else:
            difference = _difference(identity, self.identity)
            if difference is None:
                _say(f"{self.path}: the job goes on from here")
                return state
            reason = f"made with {difference}"
        _say(f"{self.path}: not used, {reason}; the job starts afresh")
        return None

    def offer(self, state: State) -> None:
        """Save the state if the time has come or a signal asks; on SIGTERM raise SystemExit."""
        if not self.asked and time.monotonic() < self.due:
            return
        asked, self.asked = self.asked, set()
        saved = self._save(state)
        self.due = time.monotonic() + self.seconds
        for number in sorted(asked):
            if saved:
                _say(f"{self.path}: saved on {signal.Signals(number).name}")
        if signal.SIGTERM in asked:
            raise SystemExit(128 + signal.SIGTERM)

    def _save(self, state: State) -> bool:
        content = packed(self.identity, state)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.partial, self.path)
        except OSError as error:
            _say(f"{self.path}: cannot be written: {error.strerror or error}; free some space")
            with suppress(OSError):
                self.partial.unlink()
            return False
        return True


def _say(line: str) -> None:
    print(f"checkpoint: {line}", file=sys.stderr, flush=True)


# --- the file --------------------------------------------------------------------------------


def packed(identity: Mapping[str, Any], state: State) -> bytes:
    """A checkpoint as safetensors: the tensors, the facts as bytes of JSON, in the metadata the
    identity and the sha256 of all three."""
    facts = bytearray(json.dumps(state.facts).encode())
    tensors = {"facts": torch.frombuffer(facts, dtype=torch.uint8)}
    for group, members in state.tensors.items():
        for name, value in members.items():
            own = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            tensors[f"{group}/{name}"] = own
    digest = _sha256(identity, tensors)
    content = {"identity": identity, "order": list(tensors), "sha256": digest}
    return safetensors.torch.save(tensors, {KEY: json.dumps(content)})


def read(path: Path) -> tuple[Mapping[str, Any], State]:
    """Identity and state of a checkpoint; raises ValueError, or whatever the reader of a damaged
    file does, where the content is not what was saved."""
    with safetensors.safe_open(path, "pt") as file:
        content = json.loads(file.metadata()[KEY])
        # copies, aligned as torch's own are: a library's sums may depend on it
        tensors = {name: file.get_tensor(name).clone() for name in content["order"]}
    if content["sha256"] != _sha256(content["identity"], tensors):
        raise ValueError("its sha256 is not the one that was saved")
    facts = json.loads(tensors.pop("facts").numpy().tobytes())
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = value
    return content["identity"], State(groups, facts)


def _sha256(identity: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    hashed = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        hashed.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        hashed.update(value.numpy().data)
    return hashed.hexdigest()


def _difference(found: Any, wanted: Any, where: str = "") -> str | None:
    """The first entry in which two identities differ, in words; None where they do not."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            inside = f"{where}.{key}" if where else key
            difference = _difference(found.get(key), wanted.get(key), inside)
            if difference is not None:
                return difference
        return None
    if found == wanted:
        return None
    return f"{where} = {json.dumps(found)}, this job has {json.dumps(wanted)}"

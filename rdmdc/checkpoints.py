"""How a stage function hands over its state, so that a killed job can continue from it.

A stage function knows no file, clock or signal. It asks once for the state to begin with and offers
its state after each step; every draw is made from a generator of its own, so that a state is
tensors and counters, and a resumed job ends with the same bits as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class State:
    """What a stage needs to continue: named groups of tensors, and facts that JSON holds exactly.

    It refers to what the stage works with and is written before the next step changes that.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    facts: Mapping[str, Any]

    def group(self, name: str, device: torch.device | str) -> dict[str, torch.Tensor]:
        """A group's tensors on a device; a group that was empty has none."""
        return {key: value.to(device) for key, value in self.tensors.get(name, {}).items()}


class Checkpoints(Protocol):
    """Where a stage function gets the state to begin with, and offers its own."""

    def resume(self) -> State | None:
        """The state to go on from; None begins at the start."""

    def offer(self, state: State) -> None:
        """Take the state after a step, to be saved if that is due."""


class NoCheckpoints:
    """For work that begins at the start and saves no state: from Python, in benchmarks."""

    def resume(self) -> State | None:
        """Nothing was saved."""
        return None

    def offer(self, state: State) -> None:
        """Nothing is saved."""


@dataclass(frozen=True)
class Part:
    """Checkpoints of a part of the work: the state it began in, and the facts of the rest."""

    whole: Checkpoints
    begun: State | None
    rest: Mapping[str, Any]

    def resume(self) -> State | None:
        """The state in which the whole was resumed, if it was within this part."""
        return self.begun

    def offer(self, state: State) -> None:
        """Offer the part's state as one of the whole."""
        self.whole.offer(State(state.tensors, {**self.rest, **state.facts}))

"""What is wrong with single images or classes: an error, or left out and listed."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdmdc.datasets.split import DatasetError


@dataclass
class Faults:
    """Faults in the order they are found; without ``skip`` the first one is a DatasetError."""

    skip: bool
    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, place: str, fault: str, remedy: str) -> None:
        """Note a fault at a place, or raise it with the remedy."""
        if not self.skip:
            raise DatasetError(
                f"{place}: {fault}; {remedy}, or leave out whatever is broken by --skip-broken"
            )
        self.found.append((place, fault))

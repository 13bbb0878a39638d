"""RDM-DC: data poisoning of dataset condensation, and condensation that resists it.

    import rdmdc

    train, test = rdmdc.load_dataset("emoji")
    small = rdmdc.condense(train, ipc=10, method="screened_dm")
    rdmdc.evaluate(small, test)

Importing the package is cheap: it loads neither torch nor pyarrow before a function is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rdmdc.api import attack as attack
    from rdmdc.api import condense as condense
    from rdmdc.api import evaluate as evaluate
    from rdmdc.api import network as network
    from rdmdc.api import screen as screen
    from rdmdc.api import target as target
    from rdmdc.datasets.arrays import labelled as labelled
    from rdmdc.datasets.arrays import load_dataset as load_dataset

__version__ = "0.2.0.dev0"

__all__ = [
    "attack",
    "condense",
    "evaluate",
    "labelled",
    "load_dataset",
    "network",
    "screen",
    "target",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from rdmdc import api

        return getattr(api, name)
    raise AttributeError(f"module 'rdmdc' has no attribute {name!r}; it has {', '.join(__all__)}")

"""Progress of a job: a bar with loss and time left on a terminal, or a line a minute in a log."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

OnStep = Callable[[int, int, float], None]
"""Called with steps done, steps in all, and the loss."""

INTERVAL = 60  # seconds between lines in a log


class Progress:
    """Called with steps done, steps in all and the loss.

    A count that falls back (the next network, the next restart) begins the next bar. A log gets
    the first and the last step of each, and a line a minute between.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar = tqdm(desc=name, unit="step", disable=not sys.stderr.isatty(), leave=False)
        self.done, self.shown = 0, float("-inf")
        self.before: int | None = None  # steps done before the bar began: a resumed job's
        self.started = self.latest = time.monotonic()

    def __call__(self, done: int, total: int, loss: float) -> None:
        """Show the state after a step."""
        if done <= self.done:
            self.started, self.shown = self.latest, float("-inf")
            self.before = None
            self.bar.reset()
        if self.before is None:
            self.before = done - 1
        self.done, self.bar.n, self.bar.total = done, done, total
        now = self.latest = time.monotonic()
        if not self.bar.disable:
            self.bar.set_postfix(loss=f"{loss:.4g}")
        elif done == total or now - self.shown >= INTERVAL:
            spent = now - self.started
            left = spent * (total - done) / (done - self.before)
            print(
                f"{self.name}: {done}/{total}, loss {loss:.4g}, "
                f"{tqdm.format_interval(spent)} spent, {tqdm.format_interval(left)} left",
                file=sys.stderr,
                flush=True,
            )
            self.shown = now

"""One progress display is shown for all stages."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from gm_experiments.reproduce.settings import Stage
from gm_lab.run import Headway, ticking

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0


class Display:
    """It is a bar on a terminal, and a line now and then elsewhere."""

    def __init__(self, name: str, stages: Sequence[Stage]) -> None:
        from rich.console import Console

        self._name, self._stages = name, stages
        self._total = sum(stage.weight for stage in stages)
        self._console = Console(file=sys.stderr)  # as it is now: a stage's words go elsewhere
        self._bar = _bar(self._console)
        self._task = self._bar.add_task(name, total=self._total)
        self._index, self._shown, self._when = -1, -1.0, 0.0

    @contextlib.contextmanager
    def visible(self) -> Iterator[None]:
        """Shows it while the block runs."""
        with self._bar:
            yield

    def update(self, index: int, part: float) -> None:
        """Shows which stage is running and which part of it is finished."""
        done = sum(stage.weight for stage in self._stages[:index]) + part * self._stages[index].weight
        title = f"{self._name} {index + 1}/{len(self._stages)} {self._stages[index].name}"
        self._bar.update(self._task, completed=done, description=title, refresh=True)
        now = time.monotonic()
        rested = now - self._when > SECONDS_BETWEEN_LINES
        if not self._console.is_terminal and (index != self._index or rested or done >= self._total > self._shown):
            self.say(f"{title}: {100 * done / self._total:.0f}%")
            self._index, self._shown, self._when = index, done, now

    def say(self, line: str) -> None:
        """Shows a line of text beside it."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def following(self, index: int, _label: str, headway: Headway) -> Iterator[Callable[[], None]]:
        """Shows a stage's progress, by time if it has hours, else by cells: call what it yields when it advanced."""
        stage, begun = self._stages[index], time.monotonic()

        def show() -> None:
            part = (time.monotonic() - begun) / stage.weight if stage.hours else headway.reached / headway.total
            self.update(index, min(part, 1.0))

        with ticking(show):
            yield show


def _bar(console: "Console") -> "Progress":
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(), progress.TimeRemainingColumn(),
    )  # fmt: skip
    # without a thread of its own: workers are forked while it is shown
    return progress.Progress(*columns, console=console, disable=not console.is_terminal, auto_refresh=False)

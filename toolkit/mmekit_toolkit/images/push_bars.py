"""The progress of a push on a terminal: a bar for each layer that is on its way."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from mmekit_toolkit.images.push_progress import PushProgress


class PushBars(PushProgress):
    """Draws bars below its lines; a context manager."""

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self._bars: dict[str, TaskID] = {}
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> PushBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def moved(self, layer: str, current: int, total: int) -> None:
        if layer not in self._bars:
            self._bars[layer] = self._progress.add_task(layer, total=total)
        self._progress.update(self._bars[layer], completed=min(current, total))

    def arrived(self, layer: str) -> None:
        if layer in self._bars:
            self._progress.remove_task(self._bars.pop(layer))

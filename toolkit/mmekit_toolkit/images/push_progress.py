"""The progress of a push: a line for each layer that has arrived."""

from __future__ import annotations

import click

from mmekit_toolkit.images.remote import Event

_ARRIVED = ("Pushed", "Layer already exists", "Mounted from")


class PushProgress:
    """Is told the engine's events (Docker Engine API: ImagePush) and prints lines to stderr."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._sizes: dict[str, int] = {}
        self._arrived: set[str] = set()

    def remark(self, text: str) -> None:
        """Print a sentence."""
        self.line(f"{self._command}: {text}")

    def line(self, text: str) -> None:
        """Print a line; where else something is drawn, above it."""
        click.echo(text, err=True)

    def event(self, event: Event) -> None:
        """Show one event."""
        layer, status = event.get("id"), str(event.get("status", ""))
        if not layer:
            return
        if status == "Pushing" and event.get("progressDetail", {}).get("total"):
            self._sizes[layer] = event["progressDetail"]["total"]
            self.moved(layer, event["progressDetail"]["current"], self._sizes[layer])
        elif status.startswith(_ARRIVED) and layer not in self._arrived:
            self._arrived.add(layer)
            size = f" ({self._sizes[layer] / 1e6:,.1f} MB)" if layer in self._sizes else ""
            self.arrived(layer)
            self.remark(f"{layer}: {status[0].lower()}{status[1:]}{size}")
        elif status in ("Retrying in 5 seconds", "Retrying in 10 seconds", "Retrying in 15 seconds"):
            # The engine counts down, a line a second, from five seconds more each time.
            self.remark(f"{layer}: the registry was lost; r{status[1:]}")

    def moved(self, layer: str, current: int, total: int) -> None:
        """Hear that ``current`` of a layer's ``total`` bytes are sent; more than all, with tar's own."""

    def arrived(self, layer: str) -> None:
        """Hear that a layer is in the registry."""

"""``python -m mmekit_endpoint.api.control``: the process that the service starts."""

from __future__ import annotations

from mmekit_endpoint.api.control.server import main

main()

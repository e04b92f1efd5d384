"""boto3 clients of the service itself: for its models' store, and for the services in its other process."""

from __future__ import annotations

import threading
from typing import Any

from mmekit_endpoint.settings import Settings

#: The other process verifies no signatures; boto3 wants keys nevertheless.
_ANY_KEY = ("mmekit-local", "mmekit-local")


class Clients:
    """Makes clients once each; all threads may use them. ``address`` is the other process's.

    They are made at first use: boto3 takes a third of a second to import.
    """

    def __init__(self, settings: Settings, address: tuple[str, int]) -> None:
        self._settings = settings
        self._url = f"http://{address[0]}:{address[1]}"
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], Any] = {}

    def of(self, region: str, service: str) -> Any:
        """Return a client of one of the services around the endpoints."""
        return self._client(region, service, self._url, _ANY_KEY)

    def s3(self) -> Any:
        """Return the client of the models' store: the embedded one, or the object store that was named.

        That one is asked with the credentials of this process's environment.
        """
        if self._settings.s3_endpoint_url is None:
            return self.of(self._settings.region, "s3")
        return self._client(self._settings.region, "s3", self._settings.s3_endpoint_url, None)

    def _client(self, region: str, service: str, url: str, keys: tuple[str, str] | None) -> Any:
        with self._lock:
            client = self._made.get((region, service))
            if client is None:
                import boto3
                from botocore.config import Config

                named = (
                    {} if keys is None else {"aws_access_key_id": keys[0], "aws_secret_access_key": keys[1]}
                )
                client = self._made[region, service] = boto3.session.Session().client(
                    service,
                    region_name=region,
                    endpoint_url=url,
                    config=Config(
                        # Variables such as HTTP_PROXY are not meant for this machine's own processes.
                        proxies={} if keys is not None else None,
                        retries={"mode": "standard", "max_attempts": 1},
                        connect_timeout=5,
                        read_timeout=10,
                        max_pool_connections=32,
                        s3={"addressing_style": "path"},
                    ),
                    **named,
                )
            return client

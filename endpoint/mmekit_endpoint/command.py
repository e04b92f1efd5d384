"""``mmekit local``: the endpoint service in the foreground, and commands that look at a running one."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from mmekit.errors import CannotListen
from mmekit_endpoint.settings import Settings

#: Exit code for an option that cannot be used (sysexits.h: EX_CONFIG), as of `mmekit serve`.
EXIT_CONFIG = 78
#: Exit code when the service cannot start, or does not answer.
EXIT_FAILED = 1

_DEFAULTS = {field: Settings.__dataclass_fields__[field].default for field in Settings.__dataclass_fields__}

#: Addresses on which only this machine's programs can call.
_LOOPBACK = ("127.", "::1", "localhost")


_SECONDS = click.FloatRange(0, min_open=True)
_FROM_ZERO = click.FloatRange(0)


def _number(name: str, field: str, help_text: str, kind: Any = _SECONDS) -> Callable[[Any], Any]:
    return click.option(name, field, type=kind, default=_DEFAULTS[field], show_default=True, help=help_text)


def _byte_size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Read a size such as 500M or 20G (powers of 1024)."""
    if value is None:
        return None
    units = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
    text = value.strip().upper().removesuffix("IB").removesuffix("B")
    unit = units.get(text[-1:], 1)
    digits = text[:-1] if text[-1:] in units else text
    if not digits.isdigit() or not int(digits):
        raise click.BadParameter(f"expected a size such as 500M or 20G, not {value!r}")
    return int(digits) * unit


@click.group(
    invoke_without_command=True,
    epilog="Example: mmekit local --models ./models, then curl --data '1,2,3' -H 'Content-Type: text/csv' "
    "-H 'X-Amzn-SageMaker-Target-Model: a.tar.gz' http://127.0.0.1:8765/endpoints/local/invocations",
)
@click.option("--host", default=_DEFAULTS["host"], show_default=True, help="Address to listen on.")
@_number("--port", "port", "Port to listen on; 0 takes a free one.", click.IntRange(0, 65535))
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of definitions, objects, logs and volumes; it survives the service. Else a temporary one.",
)
@click.option(
    "--launcher",
    type=click.Choice(["auto", "docker", "process"]),
    default="auto",
    show_default=True,
    help="How instances run: containers, or `mmekit serve` processes. auto: docker where an engine answers.",
)
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Serve the archives of this folder as a multi-model endpoint, without any AWS call.",
)
@click.option(
    "--endpoint-name",
    default=_DEFAULTS["endpoint_name"],
    show_default=True,
    help="Name of that endpoint.",
)
@click.option("--image", default=_DEFAULTS["image"], show_default=True, help="Its image (docker).")
@click.option(
    "--instance-type",
    default=_DEFAULTS["instance_type"],
    show_default=True,
    help="Its instance type: memory, CPUs and GPUs.",
)
@click.option(
    "--program", help="Run PROGRAM serve in place of mmekit serve (process). It binds SAGEMAKER_BIND_TO_PORT."
)
@click.option(
    "--region",
    default=lambda: os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
    show_default="AWS_REGION, AWS_DEFAULT_REGION, us-east-1",
    help="Region of what unsigned requests make.",
)
@click.option("--s3-endpoint-url", help="Object store to use in place of the embedded one.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="ID=SECRET",
    envvar="MMEKIT_LOCAL_KEYS",
    help="Verify signatures with this key; repeatable. Off on loopback without. [MMEKIT_LOCAL_KEYS]",
)
@_number("--invoke-timeout", "invoke_timeout_s", "Seconds of an invocation, a cold model's wait included.")
@_number("--load-timeout", "load_timeout_s", "Seconds of a download and load together.")
@_number("--startup-timeout", "startup_timeout_s", "Seconds until a container must answer /ping.")
@_number(
    "--settle", "settle_s", "Seconds that Create, Update and Delete wait for their end; AWS: 0.", _FROM_ZERO
)
@_number("--health-period", "health_period_s", "Seconds between two health checks.")
@_number(
    "--store-patience",
    "store_patience_s",
    "Seconds that a store which does not answer is asked again.",
    _FROM_ZERO,
)
@_number(
    "--failure-memory", "failure_memory_s", "Seconds that a failed load is answered from memory.", _FROM_ZERO
)
@_number("--copy-idle", "copy_idle_s", "Seconds after which an unused extra copy of a model is unloaded.")
@_number("--metrics-period", "metrics_period_s", "Seconds between two publications to CloudWatch.")
@_number(
    "--memory-percent",
    "memory_percent",
    "Percent of memory above which a load unloads another model first.",
    click.FloatRange(0, 100),
)
@_number("--max-in-flight", "max_in_flight", "Calls that a copy of a model gets at once.", click.IntRange(1))
@_number(
    "--hot", "hot_in_flight", "Calls at a copy from which another instance gets the model.", click.IntRange(1)
)
@click.option(
    "--volume",
    "volume_bytes",
    callback=_byte_size,
    metavar="SIZE",
    help="Volume of an instance where VolumeSizeInGB is not given, such as 20G. Else by instance type.",
)
@click.pass_context
def local(context: click.Context, /, **options: Any) -> None:
    """Run a multi-model endpoint service on this machine until SIGTERM.

    Set AWS_ENDPOINT_URL to its address: boto3, the AWS CLI and the SageMaker SDK work with it unchanged.
    """
    if context.invoked_subcommand is not None:
        return
    keys = _keys(options.pop("keys"))
    if not keys and not options["host"].startswith(_LOOPBACK):
        _leave(
            f"--host {options['host']} can be called from other machines: give --key ID=SECRET, so that "
            "signatures are verified, or listen on 127.0.0.1.",
            EXIT_CONFIG,
        )
    _check_instance_type(options["instance_type"])
    _serve(options, keys)


def _serve(options: dict[str, Any], keys: dict[str, str]) -> None:
    try:
        from mmekit_endpoint import service
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mmekit"):
            raise
        _leave(
            f"the package {error.name} is missing; the local endpoint needs more than the base install: "
            "pip install 'mmekit[endpoint]'.",
            EXIT_FAILED,
        )
    from mmekit_endpoint.database import StateUnusable
    from mmekit_endpoint.errors import LaunchFailed

    state: Path | None = options.pop("state")
    settings = Settings(
        state=state.resolve() if state else Path(tempfile.mkdtemp(prefix="mmekit-local-")).resolve(),
        state_is_temporary=state is None,
        keys=keys,
        **options,
    )
    logging.basicConfig(format="mmekit local: %(message)s", level=logging.WARNING)
    try:
        greeting = _Greeting(settings)
        service.run(settings, greeting.started, greeting.settled)
    except (service.StateInUse, service.PartFailed, StateUnusable, LaunchFailed) as error:
        _leave(str(error), EXIT_FAILED)
    except CannotListen as error:
        _leave(error.message, EXIT_FAILED)


class _Greeting:
    """Says where the service is, and when the endpoint of --models serves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = ""

    def started(self, url: str, launcher: str) -> None:
        self._url = url
        click.echo(f"mmekit local: listening on {url} (launcher {launcher}, state {self._settings.state})")
        click.echo(f"  export AWS_ENDPOINT_URL={url}")

    def settled(self, status: str, reason: str) -> None:
        name = self._settings.endpoint_name
        click.echo(f"mmekit local: endpoint {name} is {status}. {reason}".rstrip())
        if status == "InService":
            click.echo(
                "  curl --data-binary @payload -H 'Content-Type: text/csv' -H "
                f"'X-Amzn-SageMaker-Target-Model: ARCHIVE' {self._url}/endpoints/{name}/invocations"
            )


def _keys(given: tuple[str, ...]) -> dict[str, str]:
    keys = {}
    for text in given:
        key_id, found, secret = text.partition("=")
        if not found or not key_id or not secret:
            _leave(f"--key is ID=SECRET, not {text!r:.40}.", EXIT_CONFIG)
        keys[key_id] = secret
    return keys


def _check_instance_type(name: str) -> None:
    from mmekit_endpoint.fleet.instance_types import instance_type

    try:
        instance_type(name)
    except KeyError:
        _leave(
            f"--instance-type {name} is none of SageMaker's: expected one such as ml.m5.large.", EXIT_CONFIG
        )


# --- looking at a running service -------------------------------------------------------------------


def _looks(command: Callable[..., Any]) -> Callable[..., Any]:
    url = click.option(
        "--endpoint-url",
        envvar=["MMEKIT_LOCAL_URL", "AWS_ENDPOINT_URL"],
        default="http://127.0.0.1:8765",
        show_default=True,
        help="Address of the service. [AWS_ENDPOINT_URL]",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
    return url(as_json(command))


@local.command(epilog="Example: mmekit local status --endpoint-url http://127.0.0.1:8765")
@_looks
def status(endpoint_url: str, as_json: bool) -> None:
    """Show endpoints and instances: memory, disk, hit ratio, load times, latencies."""
    from mmekit_endpoint import tables

    _show(_get(endpoint_url, "status"), as_json, tables.status)


@local.command(epilog="Example: mmekit local models --json")
@_looks
def models(endpoint_url: str, as_json: bool) -> None:
    """Show which models are on which instances, and in what state."""
    from mmekit_endpoint import tables

    _show(_get(endpoint_url, "status"), as_json, tables.models)


@local.command(epilog="Example: mmekit local events --follow")
@click.option("--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("--since", type=int, help="Number of the event to go on after. Else the last thousand.")
@_looks
def events(endpoint_url: str, as_json: bool, follow: bool, since: int | None) -> None:
    """Show what happened: instances, loads, evictions, failures."""
    from mmekit_endpoint import tables

    found = _get(endpoint_url, "events" if since is None else f"events?since={since}")
    _show(found, as_json, tables.events)
    last = since or 0
    try:
        while follow:
            if found["events"]:
                last = found["events"][-1]["sequence"]
            time.sleep(0.5)
            found = _get(endpoint_url, f"events?since={last}")
            for event in found["events"]:
                click.echo(json.dumps(event) if as_json else tables.event_line(event))
    except KeyboardInterrupt:
        pass


def _get(endpoint_url: str, name: str) -> Any:
    import http.client
    import urllib.error
    import urllib.request

    url = f"{endpoint_url.rstrip('/')}/_mmekit/{name}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)
    except (OSError, ValueError, http.client.HTTPException, urllib.error.URLError) as error:
        _leave(
            f"{url} does not answer as a local endpoint does ({error}). Start one with `mmekit local`, or "
            "name its address with --endpoint-url.",
            EXIT_FAILED,
        )


def _show(found: Any, as_json: bool, table: Callable[..., None]) -> None:
    from rich.console import Console

    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        table(found, Console())


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"mmekit local: {message}", err=True)
    sys.exit(code)

"""Which failures of AWS's services mean that trying again is in vain."""

from __future__ import annotations


def is_refusal(error: Exception) -> bool:
    """Return whether the same request would be refused again, rather than not answered now."""
    from botocore.exceptions import ClientError, ParamValidationError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        return bool(400 <= status < 500 and status != 429)
    return isinstance(error, ParamValidationError)

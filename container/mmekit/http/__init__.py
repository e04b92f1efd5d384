"""HTTP/1.1 on asyncio and httptools: bytes to Request, Response to bytes, limits, flow control."""

from mmekit.http.exchange import Application, Exchange
from mmekit.http.limits import BodyBudget, Limits
from mmekit.http.message import Request, Response, error_response, json_error, parse_query, split_path
from mmekit.http.server import HttpServer

__all__ = [
    "Application",
    "BodyBudget",
    "Exchange",
    "HttpServer",
    "Limits",
    "Request",
    "Response",
    "error_response",
    "json_error",
    "parse_query",
    "split_path",
]

"""The processes that hold models; they know nothing of HTTP."""

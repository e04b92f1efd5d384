"""A running endpoint: ``mmekit models``, ``invoke``, ``status``, ``logs``."""

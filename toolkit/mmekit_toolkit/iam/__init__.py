"""Least-privilege policies: ``mmekit iam``."""

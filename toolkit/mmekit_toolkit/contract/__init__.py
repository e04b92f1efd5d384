"""The conformance kit: ``mmekit contract``."""

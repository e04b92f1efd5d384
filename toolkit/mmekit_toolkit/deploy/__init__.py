"""Endpoints from one YAML file: ``mmekit deploy``, ``update``, ``delete``."""

"""Endpoints, variants and instances: what SageMaker runs behind an endpoint's name."""

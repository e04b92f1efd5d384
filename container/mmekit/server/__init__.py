"""The server process: HTTP routes, the registry of models, and the workers; runs no model code."""

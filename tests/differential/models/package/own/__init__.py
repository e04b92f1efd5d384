"""A handler in a package of the model."""

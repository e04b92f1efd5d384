"""The second engine: AWS's Multi Model Server itself, with this package's handlers in its workers."""

"""The second engine: AWS's Multi Model Server with this package's handlers."""

"""What the handler string names is no function."""

handle = 5

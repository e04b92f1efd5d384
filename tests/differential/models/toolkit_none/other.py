"""A module that the toolkit does not look at."""

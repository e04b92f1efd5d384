"""A module beside the handler."""

ANSWER = "from a sibling"

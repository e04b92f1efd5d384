"""``mms.utils``."""

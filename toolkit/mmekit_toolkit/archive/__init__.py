"""Model archives: ``mmekit archive``."""

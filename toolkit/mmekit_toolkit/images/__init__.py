"""Container images: ``mmekit build``, ``mmekit push``."""

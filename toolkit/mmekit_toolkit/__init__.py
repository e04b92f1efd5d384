"""Commands for people who build and ship models; images do without."""

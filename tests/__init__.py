"""Tests; `tests.support` and `tests.image` hold what several of them use."""

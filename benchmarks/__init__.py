"""Measures mmekit against the same handler inside one HTTP process and against Multi Model Server."""

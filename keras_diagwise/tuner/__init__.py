"""Measures candidates for problems, without knowledge of models or layers."""

"""Measures candidates for problems: knows neither models nor layers."""

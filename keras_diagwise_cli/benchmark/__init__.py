"""The benchmark of `keras-diagwise benchmark`: its figures and their table."""

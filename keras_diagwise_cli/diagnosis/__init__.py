"""The checks of `keras-diagwise doctor`."""

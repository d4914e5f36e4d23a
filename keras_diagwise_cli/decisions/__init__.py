"""Tables of `keras-diagwise decisions`."""

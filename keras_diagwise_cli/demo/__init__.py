"""The demo of `keras-diagwise demo`: images, training, figures and tables."""

"""Models of the paper's other frameworks, one module a format: import the one you need,
as in `from keras_diagwise.importers import darknet`."""

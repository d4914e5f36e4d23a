"""Importers for models of the paper's other frameworks, one module per format.

Import the one you need, as in `from keras_diagwise.importers import darknet`.
"""

"""Names of Keras's backends, for code that must not import one."""

TRAINING = ("jax", "tensorflow", "torch")
"""Backends that train. Where none is chosen and Keras's default is not installed, the
command takes the first that is."""

INFERENCE_ONLY = ("numpy", "openvino")

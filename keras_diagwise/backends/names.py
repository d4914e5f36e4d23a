"""Names of Keras's backends, for code that must not import one."""

TRAINING = ("jax", "torch", "tensorflow")
"""Backends that train. Where none is chosen, the first that is installed serves."""

INFERENCE_ONLY = ("numpy", "openvino")

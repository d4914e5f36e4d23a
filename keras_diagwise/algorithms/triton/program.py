"""A kernel as a program for one kind of GPU, compiled without a device.

    python program.py PROGRAM

compiles one into Triton's cache. Run by its path, it imports only the kernels of the
package, and starts in 0.3 s.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}

MAX_SECONDS = 45
"""Timeout of a compilation in a separate process; 7×7 takes 13 s."""

KERNELS = "keras_diagwise.algorithms.triton.kernels"


class Program(NamedTuple):
    """A kernel to compile, without the sizes that are its arguments."""

    kernel: str
    constants: tuple[tuple[str, Any], ...]
    dtype: str
    result_dtype: str
    capability: int
    warps: int


def compiled(program: Program):
    """The compiled program, which also goes into Triton's cache on disk, where a launch
    on such a device finds it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernels = kernels_module()
    function = getattr(kernels, program.kernel)
    constants = dict(program.constants)
    signature, attributes = {}, {}
    results = [name for name in function.arg_names if name not in constants][-1]
    for index, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in kernels.SIZES:
            signature[name] = "i32"
        else:
            dtype = program.result_dtype if name == results else program.dtype
            signature[name] = f"*{SHORT[dtype]}"
            attributes[index,] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", program.capability, 32)
    options = {"num_warps": program.warps, "num_stages": 1}
    return triton.compile(source, target=target, options=options)


@functools.cache
def kernels_module():
    """The kernels' module, under the name by which Triton's cache knows it. It loads
    without the package, and so without Keras, unless that is imported already."""
    if KERNELS.partition(".")[0] in sys.modules:
        return importlib.import_module(KERNELS)
    file = Path(__file__).parent / "kernels" / "__init__.py"
    spec = importlib.util.spec_from_file_location(KERNELS, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[KERNELS] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # its modules find it there, not the package
    return module


@functools.lru_cache(maxsize=4096)
def compile_apart(program: Program) -> None:
    """Compiles a program into Triton's cache, once, in a separate process, which ends
    itself if it hangs.

    Raises:
        OSError: if the process can't be started.
        subprocess.CalledProcessError: if it fails.
    """
    subprocess.run(
        [sys.executable, "-P", __file__, json.dumps(program)],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main() -> None:
    signal.alarm(MAX_SECONDS)
    kernel, constants, *rest = json.loads(sys.argv[1])
    compiled(Program(kernel, tuple(map(tuple, constants)), *rest))


if __name__ == "__main__":
    main()

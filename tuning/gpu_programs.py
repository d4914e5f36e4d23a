"""Compiles the programs of `triton` for GPUs, without one, and checks machine code.

    python -m tuning.gpu_programs [--problems NAME,…] [--capabilities 80,90,100]
                                  [--dtypes float32,…] [--processes 2]
                                  [--records FILE]

Every candidate of each pass of the problems is compiled; those that differ only in
sizes share a program. Programs in the file of records are not compiled again. The table
in tuning/results/gpu-programs.json covers the headline problems. The exit status is 1
if a program breaks a rule of `faults`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import datetime
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_diagwise.algorithms.triton import Triton
from keras_diagwise.algorithms.triton.launch import Launch, program_of
from keras_diagwise.algorithms.triton.program import Program, compiled
from keras_diagwise.backends.triton import WARPS
from keras_diagwise.problem import BYTES_PER_ELEMENT, PASSES, Problem
from tuning.records import Records, key_of, write
from tuning.workloads import headlines, problems_of

CAPABILITIES = (80, 90, 100)
DTYPES = ("float32", "bfloat16", "float16")

REGISTERS = 65536
"""Registers of a multiprocessor."""
MIN_BLOCKS = 2
"""Least number of resident thread blocks on a multiprocessor."""

HEADLINE = 90
"""Capability whose programs are shown: an H100's."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Properties of a program's machine code.

    Attributes:
        registers: registers of a thread.
        local: loads and stores of spilled registers.
        widths: bytes of the global loads in its longest loop, or in all of it.
        instructions: instructions that a warp executes for one result in each thread,
            loop iterations counted; in a kernel gradient, for a product with each of
            its taps.
    """

    registers: int
    local: int
    widths: tuple[int, ...]
    instructions: float


def tool(name: str) -> str:
    """Path of a CUDA tool that comes with Triton."""
    import triton.backends.nvidia

    return str(Path(triton.backends.nvidia.__file__).with_name("bin") / name)


class Listing(NamedTuple):
    """Output of CUDA's tools for machine code: resource usage and disassembly."""

    usage: str
    text: str


def listing(code: bytes) -> Listing:
    """Listing of machine code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.cubin")
        path.write_bytes(code)

        def output(*command: str) -> str:
            run = [tool(command[0]), *command[1:], str(path)]
            return subprocess.run(
                run, check=True, capture_output=True, text=True
            ).stdout

        return Listing(output("cuobjdump", "-res-usage"), output("nvdisasm", "-c"))


def read(program: Program, code: bytes) -> Reading:
    """Reads the properties of a program's machine code."""
    usage, text = listing(code)
    lines = instructions_of(text)
    loop = longest_loop(lines)
    loads = [load for _, word in lines[loop] if (load := width_of(word))]
    found = re.search(r"REG:(\d+)", usage)
    assert found, usage
    return Reading(
        registers=int(found[1]),
        local=sum(word.startswith(("LDL", "STL")) for _, word in lines),
        widths=tuple(sorted(set(loads))),
        instructions=round(executed(program, lines, loop), 1),
    )


def instructions_of(text: str) -> list[tuple[str | None, str]]:
    """Instructions of a listing, each with the label before it, if any."""
    found: list[tuple[str | None, str]] = []
    label = None
    for line in text.splitlines():
        if named := re.match(r"\s*(\.L_\w+):", line):
            label = named[1]
        elif word := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ +)?(.*?);", line):
            found.append((label, word[1]))
            label = None
    return found


def longest_loop(lines: list[tuple[str | None, str]]) -> slice:
    """The longest loop, or everything if there is no loop."""
    places = {label: index for index, (label, _) in enumerate(lines) if label}
    loops = []
    for index, (_, word) in enumerate(lines):
        named = re.search(r"(\.L_\w+)", word) if "BRA" in word else None
        start = places.get(named[1], index) if named else index
        if start < index:
            loops.append(slice(start, index + 1))
    if not loops:
        return slice(0, len(lines))
    return max(loops, key=lambda each: each.stop - each.start)


def width_of(word: str) -> int | None:
    """Bytes of a global load, or `None` for another instruction."""
    if not word.startswith("LDG"):
        return None
    operation = word.split()[0]
    if "128" in operation:
        return 16
    if "64" in operation:
        return 8
    return 2 if "U16" in operation else 1 if "U8" in operation else 4


def executed(program: Program, lines: list, loop: slice) -> float:
    """Instructions per result, see `Reading`."""
    constants = dict(program.constants)
    inside = loop.stop - loop.start
    results = results_of(program.kernel, constants)
    if program.kernel == "kernel_gradient" or inside == len(lines):
        return inside / results
    return (len(lines) + inside * (turns(constants) - 1)) / results


def results_of(kernel: str, constants: dict) -> float:
    """Results of a thread; in the kernel gradient, outputs of a tile, each shared by
    several groups of taps."""
    results = constants["UNROLL"] * constants["LANES"] * constants["WIDTH"] / 32 / WARPS
    if kernel == "kernel_gradient":
        return results / groups_of_taps(constants)
    return results * (constants["STRIDE_ACROSS"] if kernel == "input_gradient" else 1)


def groups_of_taps(constants: dict) -> int:
    """Number of kernel-gradient programs per output, each with its own taps."""
    across, along = (
        -(-constants[f"KERNEL_{axis}"] // constants[f"TAPS_{axis}"])
        for axis in ("ACROSS", "ALONG")
    )
    return across * along


def turns(constants: dict) -> int:
    """Number of iterations over the rows of the convolution's kernel."""
    if "ROWS" in constants:
        return constants["KERNEL_ACROSS"] // constants["ROWS"]
    return -(-constants["KERNEL_ACROSS"] // constants["STRIDE_ACROSS"])


def faults(program: Program, reading: Reading) -> list[str]:
    """Broken rules of a program: spills, low occupancy, narrow loads."""
    constants = dict(program.constants)
    found = []
    if reading.local:
        found.append(f"{reading.local} loads and stores of what fits no register")
    blocks = REGISTERS // (reading.registers * 32 * WARPS)
    if blocks < MIN_BLOCKS:
        found.append(f"{reading.registers} registers leave room for {blocks} blocks")
    expected = min(16, constants["VECTOR"] * BYTES_PER_ELEMENT[program.dtype])
    if constants["MULTIPLIER"] == 1 and min(reading.widths) < expected:
        found.append(f"loads of {reading.widths} bytes, not {expected}")
    return found


def launches(problem: Problem) -> Iterator[tuple[str, Triton, Launch]]:
    """Launches of each candidate for each pass of a problem."""
    for pass_name in PASSES:
        for each in Triton.variants(problem, pass_name):
            yield pass_name, each, each.launch(problem, pass_name, problem.batch or 1)


def capability_here() -> int | None:
    """Compute capability of torch's device, or `None` without CUDA or if kernels are
    interpreted."""
    import torch

    if not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
        return None
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def compiled_and_read(program: Program) -> Reading:
    return read(program, compiled(program).asm["cubin"])


def readings(
    programs: Iterable[Program], processes: int, path: Path | None
) -> dict[Program, Reading]:
    """Readings of programs; those in the file of records are reused."""
    records = Records(path) if path else None
    known = {
        key_of(line["key"]): Reading(**{**line["reading"], "widths": tuple(widths)})
        for line in (records.lines if records else ())
        for widths in [line["reading"]["widths"]]
    }
    programs = list(dict.fromkeys(programs))
    new = [each for each in programs if key_of(each) not in known]
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        for program, reading in zip(new, pool.map(compiled_and_read, new), strict=True):
            known[key_of(program)] = reading
            if records:
                records.add(program, reading=dataclasses.asdict(reading))
            complain(program, reading)
    return {each: known[key_of(each)] for each in programs}


def complain(program: Program, reading: Reading) -> None:
    """Prints a program's faults."""
    for fault in faults(program, reading):
        print(f"{program.kernel} {dict(program.constants)}", fault, flush=True)


def table(
    problems: Sequence[Problem], found: Mapping[Program, Reading], capability: int
) -> list[dict]:
    """For each pass of each problem, the candidate with the fewest executed
    instructions, and its reading."""
    rows = []
    for problem, pass_name in itertools.product(problems, PASSES):
        read = {
            candidate: found[program_of(how, problem.dtype, capability)]
            for name, candidate, how in launches(problem)
            if name == pass_name
        }
        best = min(read, key=lambda each: read[each].instructions)
        names = {"problem": str(problem), "pass": pass_name, "candidate": str(best)}
        rows.append({**names, **dataclasses.asdict(read[best])})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", default="models,large_kernels,sequences")
    parser.add_argument("--capabilities", default=",".join(map(str, CAPABILITIES)))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--records", type=Path, help="what goes on where it was")
    options = parser.parse_args()
    begun = time.monotonic()
    sets = [problems_of(name) for name in options.problems.split(",")]
    dtypes = options.dtypes.split(",")
    capabilities = [int(each) for each in options.capabilities.split(",")]

    def of_dtypes(problems: Iterable[Problem]) -> list[Problem]:
        pairs = itertools.product(problems, dtypes)
        return [dataclasses.replace(each, dtype=dtype) for each, dtype in pairs]

    problems = of_dtypes(itertools.chain(*sets))
    shown = of_dtypes(headlines())
    programs = [
        program_of(how, problem.dtype, capability)
        for problem in [*problems, *shown]
        for _, _, how in launches(problem)
        for capability in capabilities
    ]
    found = readings(programs, options.processes, options.records)
    capability = HEADLINE if HEADLINE in capabilities else capabilities[0]
    wrong = sum(bool(faults(*each)) for each in found.items())
    figures = {
        "date": datetime.date.today().isoformat(),
        "triton": importlib.metadata.version("triton"),
        "capabilities": capabilities,
        "problems": len(dict.fromkeys(problems)),
        "launches": len(programs),
        "programs": len(found),
        "programs_with_faults": wrong,
        "most_registers": max(each.registers for each in found.values()),
        "seconds": round(time.monotonic() - begun),
        "headlines": table(shown, found, capability),
    }
    write("gpu-programs.json", figures)
    print({name: value for name, value in figures.items() if name != "headlines"})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

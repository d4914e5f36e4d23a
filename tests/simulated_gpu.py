"""A GPU that is not there: its queue and its clocks, and a runner on it.

Time passes only as it would on the device and on 16 cores beside it. Where a constant
is measured, it says by what; the others are of an H100 that nobody here has timed, and
are marked as assumed.
"""

import collections
import dataclasses
import heapq
import random
import statistics

from keras_diagwise import backends
from keras_diagwise.algorithms import Native
from keras_diagwise.algorithms.algorithm import Device
from keras_diagwise.algorithms.triton.launch import program_of
from keras_diagwise.problem import BYTES_PER_ELEMENT
from keras_diagwise.tuner import measure, verify
from keras_diagwise.tuner import tuner as tuner_module
from keras_diagwise.tuner.float64_passes import operand_shapes
from keras_diagwise.tuner.roofline import Roofline
from keras_diagwise.tuner.runner import Compiled, FirstRun, Runner
from keras_diagwise.tuner.verify import standard_problem
from tests.fake_runner import Asked, FakeRunner, error
from tuning import gpu_costs

H100 = Device(bytes_per_second=3.0e12, multiprocessors=132, capability=(9, 0))
"""Its copy rate as others measured it."""
CORES = 16

MATRIX_FLOPS = {"float32": 4e14, "bfloat16": 7.9e14}
"""Of dense products a second, TF32 in float32; as others measured them."""


class SimulatedGpu:
    """Calls return when they are queued; what is queued runs one behind the other.

    Attributes:
        now: the host's time, in seconds.
        free: when the device will have computed what is queued.
    """

    def __init__(self):
        self.now = self.free = 0.0

    def clock(self):
        return self.now

    def call(self, host_seconds, device_seconds):
        """A call that the host takes some time to queue, and the device to compute."""
        self.now += host_seconds
        self.free = max(self.free, self.now) + device_seconds

    def synchronize(self, tensors=None):
        self.now = max(self.now, self.free)

    def events(self):
        return [Event(self), Event(self)]

    def install(self, monkeypatch, has_events=True):
        """Lets `measure` time calls on it."""
        active = backends.active
        events = self.events if has_events else lambda: None
        monkeypatch.setattr(active, "device_events", events)
        monkeypatch.setattr(active, "synchronize", self.synchronize)
        monkeypatch.setattr(measure.time, "perf_counter", self.clock)
        monkeypatch.setattr(measure, "timing_policy", lambda: measure.ACCELERATOR)


class Event:
    """What the device's queue records when it comes to it."""

    def __init__(self, gpu):
        self._gpu = gpu

    def record(self):
        self.at = max(self._gpu.now, self._gpu.free)

    def synchronize(self):
        self._gpu.now = max(self._gpu.now, self.at)

    def elapsed_time(self, last):
        return 1e3 * (last.at - self.at)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of which nothing is there but its size."""

    shape: tuple
    dtype: str

    def __add__(self, other):
        return self


SECONDS_TO_START = 8.0
"""Of the child: 3 to import Keras and its backend, and those that CUDA takes (assumed).
"""
SECONDS_OF_LIMITS = 4.0
"""1.5 of timing and 0.6 of warming up (`measure_roofline`); 0.7 GB from the host."""
SECONDS_OF_EXACT = 0.5
"""Both draws of 2**22 elements in float64, on one core of an EPYC: 0.4 to 0.7."""
SECONDS_OF_VERIFICATION = 0.06
"""Both draws of 2**22 elements against float64, on such a core: 0.05 to 0.06."""
SECONDS_OF_AN_UPLOAD = 0.02
"""Of both operands of so many elements, at 2 GB/s (assumed)."""
OPERATIONS_OF_JAX = 0.25
"""Seconds to compile what repeats the operands of a pass and compares the parts of its
result: 0.2 to 0.3 on a CPU."""

START_OF_A_PROCESS = 0.3
"""That imports Triton."""
GIL_OF_TRITON = 0.4
"""Of the seconds that a program takes, in which no other thread traces."""
LOWERING, XLA = 0.04, 1.0
"""Seconds of JAX's tracing, in which no other thread traces, and of XLA: for a CPU they
were 0.037 and 0.41, the mean of 35 candidates for 32×28×28×96 (assumed for a GPU)."""
CHOICE_OF_CUDNN = 0.3
"""Seconds on the device in which XLA tries kernels for a convolution (assumed)."""
INDUCTOR = 8.0
"""Seconds of `torch.compile` for a pass (`COMPILES_ALONE` of the torch backend)."""


class SimulatedRunner(FakeRunner, Runner):
    """A runner on a simulated GPU: the programs, the compilers and the verification
    take what this file says, and the rest is the runner's own.

    Attributes:
        gpu: the GPU, whose host's time is that of the tuning.
        done: what is compiled or computed already: candidates of passes, programs of
            `triton`, what passes are held against, shapes of results.
        taken: seconds that the compilation of each candidate took.
        spent: seconds, by what took them.
    """

    def __init__(self, gpu):
        FakeRunner.__init__(self)
        Runner.__init__(self)
        self.gpu, self.done, self.taken = gpu, set(), {}
        self.spent = collections.Counter()
        self.programs = compile_seconds()
        self.spend("start", SECONDS_TO_START)

    def install(self, monkeypatch):
        """In place of the child and of what it would compute on the device."""
        monkeypatch.setattr(tuner_module, "SubprocessRunner", self)
        monkeypatch.setattr(verify, "operands", self.operands)
        monkeypatch.setattr(verify, "error_of", self.error_of)

    def spend(self, what, seconds):
        self.gpu.now += seconds
        self.spent[what] += seconds

    def is_new(self, thing):
        """Whether something is done for the first time."""
        is_new = thing not in self.done
        self.done.add(thing)
        return is_new

    def compile(self, jobs):
        todo = [job for job in jobs if self.is_new(job)]
        if not todo:
            return
        parts = [self.parts(job) for job in todo]
        for job, each in zip(todo, parts, strict=True):
            self.taken[job] = sum(each)
        alone, apart, device = zip(*parts, strict=True)
        busy = [0.0] * CORES
        for each in sorted(apart, reverse=True):
            heapq.heapreplace(busy, busy[0] + each)
        exact = sum(self.exact(task) for task, _ in todo)
        self.spend("compilation", max(sum(alone), exact, *busy))
        self.spend("choice of cuDNN", sum(device))

    def parts(self, job):
        """Seconds of a compilation in which no other thread traces, of the whole on a
        core, and on the device."""
        task, candidate = job
        of_triton = self.of_triton(task, candidate)
        if task.compiler_mode == "eager":
            return 0.0, of_triton and of_triton + START_OF_A_PROCESS, 0.0
        alone = LOWERING + GIL_OF_TRITON * of_triton
        convolves = candidate.name in ("native", "diagonal")
        return alone, alone + (of_triton or XLA), CHOICE_OF_CUDNN * convolves

    def of_triton(self, task, candidate):
        """Seconds of the program that is not compiled yet, if it is one."""
        if candidate.name != "triton":
            return 0.0
        how = candidate.launch(task.problem, task.pass_name, task.problem.batch)
        is_new = self.is_new(program_of(how, task.problem.dtype, 90))
        return self.programs[how.kernel] if is_new else 0.0

    def exact(self, task):
        """Seconds of what a pass is held against, unless that is known."""
        return SECONDS_OF_EXACT * share(task.problem) if self.is_new(task) else 0.0

    def examine(self, task, candidate, enough=0.0, timeout=0.0):
        if task.problem == standard_problem(task.problem.dtype):
            self.spend("standard", 0.5)
            return FirstRun(1e-9, error(0.0), 0.0)
        self.asked.append(Asked(task.problem, task.pass_name, str(candidate)))
        self.compile([(task, candidate)])
        self.spend("compilation", self.exact(task))
        return Runner.examine(self, task, candidate, enough)

    def time(self, task, candidates, seconds, min_rounds, expected=0.0):
        begun = self.gpu.now
        samples = Runner.time(self, task, candidates, seconds, min_rounds)
        self.spent["timing"] += self.gpu.now - begun
        return samples

    def roofline(self, compiler_mode, dtype):
        self.spend("roofline", SECONDS_OF_LIMITS)
        moved = 2**30
        copies = ((2**14, 5e-6), (moved, moved / H100.bytes_per_second))
        return Roofline(copies, MATRIX_FLOPS[dtype])

    def function(self, task, candidate):
        def call(*operands):
            if str(candidate).endswith(":compiled") and self.is_new((task, "run")):
                self.spend("Inductor", INDUCTOR)
            self.gpu.call(host_seconds(task, candidate), seconds)

        seconds = device_seconds(task, candidate)
        self._compiled[task, candidate] = Compiled(call, self.taken[task, candidate])
        return call

    def operands(self, problem, pass_name, draw):
        self.gpu.now += SECONDS_OF_AN_UPLOAD * share(problem)
        shapes = operand_shapes(problem, pass_name)
        return [Tensor(shape, problem.dtype) for shape in shapes]

    def error_of(self, run, problem, pass_name):
        is_xla = backends.active.environment()["compiler_mode"] == "xla"
        if is_xla and self.is_new((problem, pass_name)):
            self.spend("verification", OPERATIONS_OF_JAX)
        for draw in range(verify.DRAWS):
            run(*self.operands(problem, pass_name, draw))
        self.gpu.synchronize()
        self.spend("verification", SECONDS_OF_VERIFICATION * share(problem))
        return error(0.0)


def compile_seconds():
    """Of a kernel's programs for 3×3, the mean, on a core (tuning/gpu_costs.py)."""
    found = collections.defaultdict(list)
    for program, sample in gpu_costs.samples().items():
        constants = dict(program.constants)
        if constants["KERNEL_ACROSS"] == constants["KERNEL_ALONG"] == 3:
            found[program.kernel].append(sample.seconds)
    return {kernel: statistics.mean(taken) for kernel, taken in found.items()}


def share(problem):
    """The elements that are verified, of the most that are."""
    few = verify.distinct(problem)
    elements = few.least_bytes / BYTES_PER_ELEMENT[few.dtype]
    return min(1.0, elements / (2 * verify.MAX_ELEMENTS))


def seconds_of(task, candidate):
    """What a user pays for a call among others."""
    return max(host_seconds(task, candidate), device_seconds(task, candidate))


def host_seconds(task, candidate):
    """Until a call is queued: of a call of `jax.jit` 12 µs, as on a CPU; of torch for
    each operation, and of Triton's launch (assumed)."""
    if task.compiler_mode != "eager":
        return 12e-6
    if candidate.name == "triton":
        return 40e-6
    taps = task.problem.taps
    operations = {"native": 1, "direct": 3 * taps, "diagonal": 4}[candidate.name]
    if str(candidate).endswith(":compiled"):
        operations = 4
    if str(candidate).endswith(":split"):
        operations += 4 * candidate.work(task.problem).operations
    return 10e-6 * operations


def device_seconds(task, candidate):
    """Of the program, times what nobody predicts of it."""
    draw = random.Random(f"{task} {candidate}")
    return draw.uniform(0.9, 1.15) * modelled_seconds(task, candidate)


def modelled_seconds(task, candidate):
    problem, is_last = task.problem, task.pass_name == "kernel_gradient"
    floor = problem.least_bytes / H100.bytes_per_second + 2.5e-6
    if candidate.name == "triton":
        return candidate.predicted_seconds(problem, task.pass_name, H100)
    if isinstance(candidate, Native):  # torch's own; XLA's copies where it strides
        strided = max(problem.strides) > 1
        return floor * (problem.taps if is_last else 2.6 if strided else 1.6)
    if candidate.name == "direct":  # as the compilers' programs were read
        share = 0.47 if problem.dtype == "float32" else 0.33
        alone = task.compiler_mode == "eager" and not candidate.compiled
        return floor * (2 * problem.taps if alone else 5.0 if is_last else 1 / share)
    work = candidate.work(problem)  # assumed
    moved = 2.5 * floor + (candidate.lowering == "split") * 2 * floor
    return moved + work.flops / (0.3 * MATRIX_FLOPS[problem.dtype])

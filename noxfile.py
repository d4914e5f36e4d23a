"""The checks of the project: `nox -s tests`, `lint`, `types`, `demo`, …

Each backend is tested in an environment in which only it is installed.
"""

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "docs", "tests"]
nox.options.default_venv_backend = "venv"

CONSTRAINTS = "constraints.txt"
OLDEST = "constraints-oldest.txt"
DIST = Path("dist")
BACKENDS = {
    "jax": "jax",
    "tensorflow": "tensorflow-cpu",
    "torch": "torch",
}
TEST_TOOLS = [
    *("pytest", "pytest-xdist", "hypothesis"),
    *("scikit-learn", "pillow", "fsspec"),
]
EXPORTS = {
    "jax": ["tensorflow-cpu", "jax2onnx", "onnxruntime", "openvino"],
    "tensorflow": ["tf2onnx", "onnxruntime"],
    "torch": ["tensorflow-cpu", "onnxscript", "onnxruntime", "litert-torch"],
}
"""What Keras's exports and its backends without training take: up to a gigabyte."""
TWO_AT_ONCE = ["-n", "2", "--dist", "worksteal"]
"""Most of the tests' time is compilation, on one core."""


def install(session, backend, *more):
    session.install("-c", CONSTRAINTS, BACKENDS[backend], ".", *more)
    session.env.update(KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3")


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def tests(session, backend):
    """The tests, on one backend with no other installed."""
    install(session, backend, *TEST_TOOLS)
    # Two processes with a thread for each core each would wait for each other.
    session.env["OMP_NUM_THREADS"] = "1"
    session.run("python", "-m", "pytest", *TWO_AT_ONCE, *session.posargs)


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def properties(session, backend):
    """The property tests over 2,000 problems and 500 graphs of layers.

    On TensorFlow in four processes: what XLA has compiled is never unmapped, and a
    process may hold 65,530 mappings, 25 for each problem (seen in 2.21).
    """
    install(session, backend, *TEST_TOOLS)
    files = ["tests/test_properties.py", "tests/models/test_graphs.py"]
    profile, parts = ("quarter", 4) if backend == "tensorflow" else ("long", 1)
    session.env["HYPOTHESIS_PROFILE"] = profile
    for _ in range(parts):
        session.run("python", "-m", "pytest", *files, *session.posargs)


KERNELS = {"torch": ["triton"], "jax": ["triton", "jax-triton", "jax-cuda13-plugin"]}


@nox.session
@nox.parametrize("backend", list(KERNELS), ids=list(KERNELS))
def triton(session, backend):
    """The kernels for NVIDIA GPUs: in Triton's interpreter, and as programs for GPUs
    that need not be there."""
    install(session, backend, *TEST_TOOLS, *KERNELS[backend])
    file = "tests/algorithms/test_triton.py"
    for interpreted in "10":
        session.env["TRITON_INTERPRET"] = interpreted
        session.run("python", "-m", "pytest", *TWO_AT_ONCE, file, *session.posargs)


@nox.session
def gpu_compile(session):
    """Every candidate of the workloads' problems, compiled for three kinds of GPU and
    read; half an hour on two cores."""
    install(session, "torch", "triton")
    session.run("python", "-m", "tuning.gpu_programs", *session.posargs)


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def exports(session, backend):
    """Files and exports, with every package that they take."""
    install(session, backend, *TEST_TOOLS, *EXPORTS[backend])
    files = ["tests/models/test_files.py", "tests/backends/test_inference_only.py"]
    session.run("python", "-m", "pytest", *files, *session.posargs)


@nox.session
def remote(session):
    """The store on a server of S3's protocol, on this machine, with faults."""
    install(session, "jax", "pytest", "hypothesis", "moto[server]", "s3fs")
    session.run("python", "-m", "pytest", "tests/storage/test_s3.py", *session.posargs)


@nox.session
def darknet(session):
    """Debian's package `darknet` on classifiers that were loaded and trained here."""
    if shutil.which("darknet") is None:
        session.error("needs the command darknet: apt-get install darknet")
    install(session, "jax", *TEST_TOOLS)
    file = "tests/importers/test_debian_darknet.py"
    session.run("python", "-m", "pytest", file, *session.posargs)


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def coverage(session, backend):
    """Every model of keras.applications with such convolutions, against stock."""
    install(session, backend)
    session.run("python", "-m", "tuning.coverage", *session.posargs)


@nox.session
def lint(session):
    """ruff: rules and format."""
    session.install("-c", CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session):
    """mypy over the packages."""
    packages = ("jinja2", "keras", "msgspec", "numpy", "rich", "typer")
    session.install("-c", CONSTRAINTS, "mypy", *packages)
    session.run("mypy")


@nox.session
def docs(session):
    """The documentation: whether it builds, and what it says is true."""
    tools = ["zensical", "mkdocstrings[python]", "matplotlib", "ruff"]
    for_examples = ["sktime", "nbclient", "ipykernel"]
    install(session, "jax", *TEST_TOOLS, *tools, *for_examples)
    session.run("python", "-m", "docs.build", "--check")
    session.run("zensical", "build", "--strict", "--clean")
    session.run("python", "-m", "tests.docs.site", "site")
    session.run("python", "-m", "pytest", "tests/docs")


@nox.session
def demo(session):
    """Trains a small MobileNetV2 stock and converted, side by side."""
    backend = session.posargs[0] if session.posargs else "jax"
    install(session, backend, "scikit-learn", "pillow")
    session.run("keras-diagwise", "demo", *session.posargs[1:])


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def acceptance(session, backend):
    """Measures what the README claims and writes it to tuning/results."""
    install(session, backend)
    session.run("python", "-m", "tuning.acceptance", *session.posargs)


@nox.session
@nox.parametrize("backend", ["jax", "tensorflow"], ids=["jax", "tensorflow"])
def ship(session, backend):
    """Measures the decisions that come with the package, under XLA on this CPU."""
    install(session, backend)
    session.run("python", "-m", "tuning.ship", "--compiler-mode", "xla")


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def stress(session, backend):
    """The tuner against an exhaustive search, and killed, crowded, hurried; then a
    store of 100,000 decisions."""
    install(session, backend)
    session.run("python", "-m", "tests.stress.exhaustive", session.create_tmp())
    session.run("python", "-m", "tests.stress.endurance")
    session.run("python", "-m", "tests.stress.crowded_store")


@nox.session
def benchmark(session):
    """The campaign: correctness, the suite and whole models, on every backend."""
    session.install("-c", CONSTRAINTS, *BACKENDS.values(), ".")
    arguments = session.posargs or ["--setting", "cpu", "--minutes", "600"]
    session.run("python", "-m", "tuning", *arguments)


@nox.session
def build(session):
    """The wheel, from the sdist, and the sdist: in dist/."""
    session.install("-c", CONSTRAINTS, "build", "twine")
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(DIST))
    made = [str(each) for each in sorted(DIST.iterdir())]
    session.run("python", "-m", "twine", "check", "--strict", *made)


@nox.session(requires=["build"])
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def package(session, backend):
    """The built wheel, installed beside one backend and tried outside the checkout."""
    try_wheel(session, backend, CONSTRAINTS)


@nox.session(requires=["build"])
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def oldest(session, backend):
    """The same with the oldest versions that are supported."""
    try_wheel(session, backend, OLDEST)


@nox.session(requires=["build"], python=["3.10", "3.12", "3.13", "3.14"])
@nox.parametrize("backend", ["jax", "tensorflow"], ids=["jax", "tensorflow"])
def pythons(session, backend):
    """The same on other versions of Python. Torch's wheels for them bring gigabytes of
    CUDA: it has `newest` alone."""
    skip_without_wheels(session, backend)
    try_wheel(session, backend, CONSTRAINTS)


KERAS = ["3.10.0", "3.12.4", "3.14.1", "3.15.1"]


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
@nox.parametrize("keras", KERAS, ids=KERAS)
def matrix(session, keras, backend):
    """Layers, conversions, files, pinning and tuning under other versions of Keras."""
    install(session, backend, *TEST_TOOLS)
    wanted = [f"keras=={keras}"]
    if backend == "tensorflow" and keras == "3.10.0":
        wanted.append("tensorflow-cpu==2.20.0")  # 2.21 asks for Keras 3.12
    session.install(*wanted)
    session.run("python", "-m", "tuning.keras_versions", *session.posargs)


@nox.session(python=["3.13", "3.14"])
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def newest(session, backend):
    """The same tests on the newest of all that an index has, as pip installs it."""
    skip_without_wheels(session, backend)
    session.install(BACKENDS[backend], ".", *TEST_TOOLS)
    session.env.update(KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3")
    session.run("python", "-m", "tuning.keras_versions", *session.posargs)


def skip_without_wheels(session, backend):
    if (session.python, backend) == ("3.14", "tensorflow"):
        session.skip("TensorFlow 2.21 has no wheels for Python 3.14")


def try_wheel(session, backend, constraints):
    """Installs the wheel and a backend, and runs the smoke test."""
    (wheel,) = DIST.glob("*.whl")
    session.install("-c", constraints, BACKENDS[backend], str(wheel))
    session.run("python", "-m", "pip", "check")
    session.env.update(KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3")
    script = Path("tests/smoke.py").resolve()
    folder = session.create_tmp()
    session.env["KERAS_DIAGWISE_STORE"] = str(Path(folder).resolve() / "store")
    with session.chdir(folder):
        # -I keeps the script's own folder from being imported from.
        session.run("python", "-I", str(script))

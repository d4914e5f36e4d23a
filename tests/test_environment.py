"""Environments: how they are told apart, and how they come back from JSON."""

import copy
import dataclasses
import json
import random

import pytest

from keras_diagwise import backends, environment
from keras_diagwise.environment import Environment
from tests.samples import ELSEWHERE, HERE, UPDATED


def test_the_current_environment_comes_back():
    """The current environment comes back from JSON."""
    now = Environment.current()
    back = Environment.from_dict(json.loads(json.dumps(now.to_dict())))
    assert back == now
    assert back.digest == now.digest
    assert Environment.current() == now


def test_a_new_algorithm_leaves_decisions_valid(monkeypatch):
    """Only a changed algorithm makes another environment."""
    kept = Environment.current()
    monkeypatch.delitem(environment.ALGORITHMS, "diagonal")
    assert Environment.current() == kept
    monkeypatch.setattr(environment.ALGORITHMS["direct"], "revision", 2)
    changed = Environment.current()
    assert changed.digest != kept.digest
    assert changed.changes_since(kept) == ["revision of direct 1 then, 2 now"]


def test_first_revisions_may_be_listed():
    """As in files of before, they change nothing."""
    listed = HERE.to_dict()
    listed["revisions"] = {"native": 1, "diagonal": 1, **listed["revisions"]}
    assert Environment.from_dict(listed) == HERE
    assert HERE.changes_since(Environment.from_dict(listed)) == []


def test_order_of_entries_does_not_matter():
    """The order of flags, versions and revisions does not matter."""
    values = HERE.to_dict()
    for name in ("flags", "versions", "revisions"):
        values[name] = dict(reversed(values[name].items()))
    back = Environment.from_dict(values)
    assert back == HERE
    assert hash(back) == hash(HERE)
    assert str(back) == str(HERE)


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "torch"},
        {"compiler_mode": "eager"},
        {"device_kind": "gpu"},
        {"device_name": "elsewhere"},
        {"cores": 4},
        {"vector_bits": 256},
        {"flags": (("x64", True), ("matmul_precision", None))},
        {"versions": (("jax", "1.2.3"), ("jaxlib", "1.2.30"))},
        {"revisions": (("native", 1), ("direct", 3))},
    ],
)
def test_any_change_gives_another_digest(change):
    assert dataclasses.replace(HERE, **change).digest != HERE.digest


def test_other_versions_are_the_same_place():
    """Other versions are the same place, and another device is the same kind."""
    assert HERE.is_same_place(UPDATED)
    assert not HERE.is_same_place(ELSEWHERE)
    assert HERE.is_same_kind(ELSEWHERE)


@pytest.mark.parametrize(
    "change",
    [
        {"cores": True},
        {"cores": -2},
        {"vector_bits": 0},
        {"cores": 2.0},
        {"cores": "2"},
        {"vector_bits": None},
        {"vector_bits": "512"},
        {"vector_bits": True},
        {"backend": None},
        {"device_name": 3},
        {"device_name": "x" * 2**20},
        {"flags": [["x64", False]]},
        {"flags": {"x64": float("nan")}},
        {"versions": {"jax": {}}},
        {"versions": None},
        {"more": 1},
    ],
)
def test_what_is_no_environment_is_refused(change):
    with pytest.raises(ValueError, match="An environment must have"):
        Environment.from_dict({**HERE.to_dict(), **change})


def test_what_lacks_a_field_is_refused():
    """But for the width of vectors, which only CPUs have."""
    values = HERE.to_dict()
    assert "vector_bits" not in values
    for name in values:
        with pytest.raises(ValueError, match="An environment must have"):
            Environment.from_dict({n: each for n, each in values.items() if n != name})


WIDE = dataclasses.replace(HERE, device_name="wide", vector_bits=512)


def test_cpus_differ_by_vector_width():
    """CPUs of one name differ by the width of their vectors.

    A virtual machine's "AMD EPYC" can be of a generation with AVX-512 or without.
    """
    narrow = dataclasses.replace(WIDE, vector_bits=256)
    assert Environment.from_dict(json.loads(json.dumps(WIDE.to_dict()))) == WIDE
    assert not WIDE.is_same_place(narrow)
    assert not WIDE.is_same_device(narrow)
    assert WIDE.is_same_kind(narrow)
    assert str(WIDE).startswith("wide (cpu, 2 cores, 512-bit vectors), xla")


def test_vector_width_counts_before_cores():
    """A device is more like one of equal vector width than one of as many cores."""
    others = [
        dataclasses.replace(WIDE, device_name="itself"),
        dataclasses.replace(WIDE, cores=4),
        dataclasses.replace(WIDE, cores=64),
        dataclasses.replace(WIDE, vector_bits=256),
        dataclasses.replace(WIDE, vector_bits=128),
        HERE,  # of an unknown width
    ]
    shuffled = random.Random(0).sample(others, len(others))
    assert sorted(shuffled, key=WIDE.distance) == others


@pytest.mark.parametrize(
    ("baseline", "found", "bits"),
    [
        (["SSE", "SSE2", "SSE3"], ["SSSE3", "AVX", "AVX2", "AVX512F"], 512),
        (["SSE", "SSE2", "SSE3"], ["SSSE3", "AVX", "F16C", "FMA3", "AVX2"], 256),
        (["X86_V2"], ["X86_V3", "X86_V4", "AVX512_ICL"], 512),
        (["X86_V2"], ["X86_V3"], 256),
        (["X86_V2"], [], 128),
        (["NEON", "NEON_FP16", "NEON_VFPV4", "ASIMD"], ["ASIMDHP"], 128),
        ([], [], None),
    ],
)
def test_numpy_tells_the_vector_width(monkeypatch, baseline, found, bits):
    """NumPy tells the width of vectors.

    Features have the names of NumPy 1.26 to 2.3, or those since 2.4.
    """
    known = {"SIMD Extensions": {"baseline": baseline, "found": found}}
    monkeypatch.setattr(environment.np, "show_config", lambda mode: known)
    assert environment.vector_bits.__wrapped__() == bits


X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 106
model name\t: Intel(R) Xeon(R)   Platinum 8375C CPU @ 2.90GHz

processor\t: 1
model name\t: another
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 243.75
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (X86, "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz"),
        (ARM, "ARM 0x41 0xd0c"),
        ("processor\t: 0\nisa\t: rv64imafdc\n", "riscv64"),
        (None, "riscv64"),
    ],
)
def test_linux_tells_a_cpus_model(monkeypatch, tmp_path, text, name):
    """ARM CPUs have two numbers instead of a name.

    Without them, all CPUs of an architecture would share their decisions.
    """
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(environment, "CPU_INFO", path)
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    monkeypatch.setattr(environment.platform, "machine", lambda: "riscv64")
    assert environment.cpu_name.__wrapped__() == name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (
            '[ "$*" = "-n machdep.cpu.brand_string" ] && echo Apple M2 Pro',
            "Apple M2 Pro",
        ),
        ("exit 1", "arm"),
        ("echo", "arm"),
        (None, "arm"),
    ],
)
def test_a_mac_tells_its_chip(monkeypatch, tmp_path, command, name):
    """Python itself says "arm" on every Mac."""
    if command is not None:
        program = tmp_path / "sysctl"
        program.write_text(f"#!/bin/sh\n{command}\n")
        program.chmod(0o755)
    monkeypatch.setattr(environment, "SYSCTL", str(tmp_path / "sysctl"))
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(environment.sys, "platform", "darwin")
    monkeypatch.setattr(environment.platform, "processor", lambda: "arm")
    assert environment.cpu_name.__wrapped__() == name


def test_a_macs_gpu_is_named_by_its_chip(monkeypatch):
    """Torch calls every one of them "mps"."""
    known = {**backends.active.environment(), "device_kind": "mps"}
    known["device_name"] = "mps"
    monkeypatch.setattr(backends.active, "environment", lambda: copy.deepcopy(known))
    monkeypatch.setattr(environment, "cpu_name", lambda: "Apple M2 Pro")
    found = Environment.current()
    assert (found.device_name, found.vector_bits) == ("Apple M2 Pro", None)
    assert str(found).startswith("Apple M2 Pro (mps, ")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "6400000 100000"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_limits_its_cores(monkeypatch, tmp_path, files, cores):
    """The cores of its machine are not all its own."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(environment, "CGROUP", tmp_path)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda process: range(8))
    environment.core_quota.cache_clear()
    try:
        assert environment.usable_cores() == cores
    finally:
        environment.core_quota.cache_clear()


def test_a_gpus_cores_are_multiprocessors(monkeypatch, tmp_path):
    """A GPU is known by its multiprocessors and its driver.

    The cores of the machine that it is in do not count.
    """
    known = {**backends.active.environment(), "device_kind": "gpu", "cores": 132}
    known["device_name"] = "NVIDIA H200"
    monkeypatch.setattr(backends.active, "environment", lambda: copy.deepcopy(known))
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release "
        "Build  (dvs-builder@U22-I3)\nGCC version:  gcc version 12.3.0\n"
    )
    monkeypatch.setattr(environment, "DRIVER", version)
    environment.driver_version.cache_clear()
    try:
        found = Environment.current()
        monkeypatch.setattr(environment, "DRIVER", tmp_path / "none")
        assert Environment.current() == found, "read once"
    finally:
        environment.driver_version.cache_clear()
    assert found.cores == 132
    assert dict(found.versions)["driver"] == "580.95.05"
    assert Environment.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "x" * 95_000, "\u202e"])
@pytest.mark.parametrize("place", ["device_name", "versions", "flags", "names"])
def test_harmful_text_is_refused(text, place):
    """Text that could harm a terminal or a log is refused.

    A document comes from anywhere, and the log says whose decisions serve.
    """
    values = HERE.to_dict()
    if place == "device_name":
        values[place] = text
    elif place == "names":
        values["versions"][text] = "1"
    else:
        values[place]["jax"] = text
    with pytest.raises(ValueError, match="An environment must have"):
        Environment.from_dict(values)

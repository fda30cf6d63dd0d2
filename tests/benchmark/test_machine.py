"""What the machine is called."""

import pytest

from onnxfuse.benchmark import machine


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx avx2 fma", "AVX2"),
        ("flags : avx avx2 avx512f avx512_vnni", "AVX-512, AVX-512 VNNI"),
        ("flags : avx avx2 avx_vnni", "AVX2, AVX-VNNI"),
        ("flags : avx2 avx512f avx512_vnni amx_int8", "AVX-512, AMX int8"),
        ("Features : fp asimd asimddp", "NEON, dot products"),
        ("Features : fp asimd sve i8mm asimddp", "SVE, int8 matrix products"),
    ],
)
def test_instruction_sets(tmp_path, monkeypatch, line, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{line}\n")
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert machine.instructions() == expected


def test_elsewhere_it_is_the_architecture(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert machine.instructions() == machine.platform.machine()

"""What a CPU's flags say of INT8."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.precision import cpu_features

CASES = [
    ("flags\t\t: fpu avx2 avx512_vnni avx_vnni\n", ["avx512_vnni", "avx_vnni"], "x86 with VNNI"),
    ("flags\t\t: fpu avx2 avx512f\n", [], "x86 without: a name that only begins alike does not count"),
    ("Features\t: fp asimd asimddp\n", ["asimddp"], "Arm"),
]


@pytest.mark.parametrize(("text", "names", "why"), CASES, ids=[row[-1] for row in CASES])
def test_the_flags_decide(tmp_path: Path, text: str, names: list[str], why: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)

    assert cpu_features.found(tmp_path / "cpuinfo") == names
    sentence = cpu_features.sentence(tmp_path / "cpuinfo")
    assert all(name in sentence for name in names)
    assert ("VNNI" in sentence) == (not names), "where nothing was found, what is missing is named"


def test_a_system_that_does_not_say_has_none(tmp_path: Path) -> None:
    assert cpu_features.found(tmp_path / "absent") == []

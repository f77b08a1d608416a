"""Which licences of a bill of materials are objected to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy import licences

LICENCES: list[tuple[list[dict[str, Any]], int, str]] = [
    ([{"license": {"id": "MIT"}}], 0, "an SPDX identifier"),
    ([{"expression": "(Apache-2.0 WITH LLVM-exception) AND MIT"}], 0, "an expression of allowed ones"),
    ([{"license": {"name": "License :: OSI Approved :: BSD License"}}], 0, "a classifier"),
    ([{"license": {"id": "AGPL-3.0-only"}}], 1, "a licence that asks for the source"),
    ([{"expression": "MIT AND LGPL-2.1-or-later"}], 1, "one of two"),
    ([{"license": {"name": "NVIDIA Proprietary Software"}}], 1, "a licence of one company"),
    ([], 1, "none"),
]


@pytest.mark.parametrize(("given", "count", "why"), LICENCES, ids=[row[-1] for row in LICENCES])
def test_objections(given: list[dict[str, Any]], count: int, why: str, tmp_path: Path) -> None:
    bill = {"components": [{"name": "package", "version": "1.0", "licenses": given}]}
    (tmp_path / "sbom.json").write_text(json.dumps(bill))

    assert len(list(licences.objections(bill))) == count
    assert licences.main(tmp_path / "sbom.json") == min(count, 1)


def test_a_licence_that_was_looked_up_counts() -> None:
    assert not list(licences.objections({"components": [{"name": next(iter(licences.LOOKED_UP)), "licenses": []}]}))


def test_a_licence_is_accepted_of_the_package_that_it_is_accepted_for() -> None:
    accepted, licence = next(iter(licences.ACCEPTED.items()))
    for name, count in ((accepted, 0), ("another", 1)):
        component = {"name": name, "licenses": [{"license": {"name": licence}}]}
        assert len(list(licences.objections({"components": [component]}))) == count

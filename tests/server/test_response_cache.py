"""Which repositories make a server start with a response cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from server import response_cache
from server.command import container_options

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("config", "named", "asked"),
    [
        ("response_cache { enable: true }", None, True),
        ("response_cache: <\n enable : True\n>", None, True),
        ("response_cache { enable: false }", None, False),
        ("# response_cache { enable: true }", None, False),
        ('name: "#1" response_cache { enable: true }', None, True),
        ("", "response_cache { enable: true }", True),
        ("response_cache { enable: true }", "max_batch_size: 1", False),
    ],
)
def test_only_a_repository_that_asks_for_a_cache_gets_one(
    tmp_path: Path, config: str, named: str | None, asked: bool
) -> None:
    (tmp_path / "m" / "configs").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    if named is not None:
        (tmp_path / "m" / "configs" / "cpu.pbtxt").write_text(named)
    assert response_cache.size(tmp_path, "cpu") == (response_cache.BYTES if asked else 0)


def test_the_container_has_the_cache_that_the_bundled_models_ask_for() -> None:
    options = container_options(config_name="gpu", admin_token="t", exit_timeout_s=30, trace_url="http://t")
    assert options.cache_bytes == response_cache.size(ROOT / "model_repository", "gpu")

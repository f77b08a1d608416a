"""Digests are written beside the tags of every image that is fetched."""

from __future__ import annotations

import stat
from pathlib import Path

import compose
from replica import ROOT

from deploy import digests

SHA = f"sha256:{'ab' * 32}"


def test_every_image_that_is_fetched_can_have_a_digest() -> None:
    document = compose.read({"TRITON_ADMIN_TOKEN": "a"})
    services = document["services"].values()
    fetched = {service["image"] for service in services if "build" not in service}
    fetched |= {image for service in services for image in service.get("build", {}).get("args", {}).values()}

    assert set(digests.images(compose.FILE.read_text(), {}).values()) == fetched


def test_digests_are_written_into_env_that_only_its_owner_reads(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(compose.FILE.read_text())
    (tmp_path / ".env").write_text("TRITON_ADMIN_TOKEN=secret\nHAPROXY_DIGEST=@sha256:old\nHAPROXY_TAG=2.6.1\n")
    asked = []

    def look_up(image: str) -> str:
        asked.append(image)
        return SHA

    assert digests.main(tmp_path, look_up) == 0

    lines = (tmp_path / ".env").read_text().splitlines()
    assert lines[:3] == ["TRITON_ADMIN_TOKEN=secret", f"HAPROXY_DIGEST=@{SHA}", "HAPROXY_TAG=2.6.1"]
    assert len(lines) == 2 + len(asked)
    assert "haproxy:2.6.1" in asked
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in lines)
    assert compose.read(values)["services"]["haproxy"]["image"] == f"haproxy:2.6.1@{SHA}"


def test_an_image_whose_digest_cannot_be_had_keeps_its_line(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text((ROOT / "docker-compose.yml").read_text())
    before = f"TRITON_ADMIN_TOKEN=secret\nHAPROXY_DIGEST=@{SHA}\n"
    (tmp_path / ".env").write_text(before)

    assert digests.main(tmp_path, lambda image: "no such image") == 1
    assert (tmp_path / ".env").read_text() == before

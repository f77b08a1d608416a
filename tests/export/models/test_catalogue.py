"""Catalogues of tracks: generated ones, and a person's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.errors import RecipeError
from export.models.tracks import catalogue
from export.models.tracks.catalogue import Track


def test_fifty_thousand_descriptions_are_all_different() -> None:
    tracks = catalogue.generated()

    assert [track.id for track in tracks] == list(range(1, 50_001))
    assert len({track.text for track in tracks}) == 50_000


def test_a_track_is_a_function_of_its_number() -> None:
    assert catalogue.generated(30, first=21)[:10] == catalogue.generated(30)[20:]


def test_an_artist_keeps_to_one_genre() -> None:
    genres: dict[str, set[str]] = {}
    for track in catalogue.generated(5_000):
        name, _, rest = track.text.partition(" - ")
        genres.setdefault(name, set()).add(rest.split(". ")[1].split(",")[0].split(" ", 1)[1])

    assert {len(of_artist) for of_artist in genres.values()} == {1}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    catalogue.main([str(tmp_path / "new"), "--first", "5001", "--tracks", "20"])

    assert catalogue.read(tmp_path / "new" / "tracks.csv") == catalogue.generated(20, first=5001)


ELEVEN = [f"{number},track {number}" for number in range(1, 12)]


def test_ones_own_may_have_other_columns_commas_any_script_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "tracks.csv"
    path.write_text(
        "\ufeffid,artist,text\n" + "\n".join(f'{number},a,"один, {number}"' for number in range(5, 16)), "utf-8"
    )

    assert catalogue.read(path)[0] == Track(5, "один, 5")


# (the lines of the file, what the error holds, why)
REFUSED = [
    (["id,text", *ELEVEN[:10]], 10, "ten tracks have no ten others"),
    (["id,text", *ELEVEN, "3,again"], 3, "an id twice"),
    (["id,text", *ELEVEN, "0,zero"], "0", "0 means no id"),
    (["id,text", *ELEVEN, "x1,letters"], "x1", "no number"),
    (["id,text", *ELEVEN, f"{2**63},large"], str(2**63), "more than 64 bits"),
    (["id,text", *ELEVEN, f"{'9' * 5000},endless"], "9" * 5000, "more digits than Python reads"),
    (["id,text", *ELEVEN, "12, "], " ", "an empty text"),
    (["id,text", *ELEVEN, "12"], ["id", "text"], "a line without a text"),
    (["number,text", *ELEVEN], ["number", "text"], "no column id"),
]


@pytest.mark.parametrize(("lines", "found", "why"), REFUSED, ids=[row[-1] for row in REFUSED])
def test_files_that_are_no_catalogue(tmp_path: Path, lines: list[str], found: object, why: str) -> None:
    path = tmp_path / "tracks.csv"
    path.write_text("\n".join(lines))

    with pytest.raises(RecipeError) as caught:
        catalogue.read(path)
    assert (caught.value.file, caught.value.found) == (str(path), found)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "tracks.csv"
    path.write_bytes(b"id,text\n1,\xff\xfe\n")

    with pytest.raises(RecipeError) as caught:
        catalogue.read(path)
    assert caught.value.file == str(path)

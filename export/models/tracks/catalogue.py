"""A catalogue of tracks, each an id and a description: generated ones, all different, or a person's own.

A generated track is a function of its number alone. Two catalogues have the same tracks where they have the same ids:
`generated(50_000, first=5_001)` is `generated(50_000)` with 5,000 tracks gone and 5,000 new.

    python -m export.models.tracks.catalogue FOLDER --first 5001      # writes FOLDER/tracks.csv
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from random import Random

from export.errors import RecipeError

FILE = "tracks.csv"
SIZE = 50_000
FEWEST = 11
"""Ten similar tracks, and the one that they are similar to."""

MOST_ID = 2**63 - 1
_ID = re.compile("0*[1-9][0-9]{,18}")


@dataclass(frozen=True)
class Track:
    """A track's id (1 and more) and the description that it is found and shown by."""

    id: int
    text: str


WORDS = Path(__file__).with_name("catalogue_words.txt")
_STRIDE = 7_368_787
"""It has no factor in common with the number of pairs of artist and title, so each of 8 million comes once."""


def generated(count: int = SIZE, *, first: int = 1) -> list[Track]:
    """`count` tracks with ids from `first` on."""
    words = ConfigParser()
    words.read_string(WORDS.read_text(encoding="utf-8"))
    lists = {name: _list(value) for name, value in words["words"].items()}
    genres = [(name, _list(value)) for name, value in words["genres"].items()]
    return [Track(number, _describe(number, lists, genres)) for number in range(first, first + count)]


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


def _describe(number: int, words: Mapping[str, Sequence[str]], genres: Sequence[tuple[str, Sequence[str]]]) -> str:
    """`Clara Frost - Paper Lantern. Dreamy indie folk, slow, with cello and banjo.`"""
    random = Random(number)
    first, last, which, what = (words[name] for name in ("first names", "last names", "which", "what"))
    artists = len(first) * len(last)
    title, artist = divmod(number * _STRIDE % (artists * len(which) * len(what)), artists)
    genre, instruments = genres[artist % len(genres)]  # an artist keeps to one
    one, other = random.sample(instruments, 2)
    name = f"{first[artist % len(first)]} {last[artist // len(first)]}"
    called = f"{which[title % len(which)]} {what[title // len(which)]}"
    mood, tempo = random.choice(words["moods"]).capitalize(), random.choice(words["tempos"])
    return f"{name} - {called}. {mood} {genre}, {tempo}, with {one} and {other}."


def read(path: Path) -> list[Track]:
    """The tracks of a CSV file with the columns `id` and `text`; others are passed over.

    Raises RecipeError for a file that is none, an id that is no whole number from 1 on or comes again, an empty text,
    and fewer than 11 tracks.
    """
    tracks: dict[int, Track] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
            for line, row in enumerate(csv.DictReader(file), start=2):
                track = _track(row, f"{path}, line {line}", path)
                if track.id in tracks:
                    raise _refused(path, f"{path}, line {line} has the id {track.id} again", track.id)
                tracks[track.id] = track
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refused(path, f"{path} cannot be read as CSV in UTF-8 ({error})", None) from error
    if len(tracks) < FEWEST:
        raise _refused(path, f"{path} has {len(tracks)} tracks, fewer than {FEWEST}", len(tracks))
    return list(tracks.values())


def _track(row: dict[str, str | None], where: str, path: Path) -> Track:
    number, text = row.get("id"), row.get("text")
    if number is None or text is None:
        raise _refused(path, f"{where} lacks the column {'id' if number is None else 'text'}", sorted(map(str, row)))
    if not (_ID.fullmatch(number) and int(number) <= MOST_ID):
        raise _refused(path, f"{where} has the id '{number}', which is no whole number from 1 on", number)
    if not text.strip():
        raise _refused(path, f"{where} has an empty text", text)
    return Track(int(number), text)


def _refused(path: Path, what: str, found: object) -> RecipeError:
    remedy = f"write a line for each of {FEWEST} tracks or more below `id,text`"
    return RecipeError(what, remedy=remedy, file=path, field=FILE, found=found)


def write(tracks: Sequence[Track], path: Path) -> None:
    """Write the tracks as `read` reads them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("id", "text"))
        lines.writerows((track.id, track.text) for track in tracks)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a generated catalogue."""
    parser = argparse.ArgumentParser(
        "python -m export.models.tracks.catalogue", description="Write a generated catalogue."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=f"where to write {FILE}")
    parser.add_argument("--first", type=int, default=1, metavar="ID", help="id of the first track (default: 1)")
    parser.add_argument("--tracks", type=int, default=SIZE, metavar="N", help="how many (default: %(default)s)")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    write(generated(given.tracks, first=given.first), given.folder / FILE)


if __name__ == "__main__":
    main()

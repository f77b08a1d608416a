"""What people ask: the models in the repository that answer whole questions, made of a recipe's model and of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.recipe.recipe import Arrays


@dataclass(frozen=True)
class Question:
    """One request for a person: `text` asks it in words (`in French: "May 3rd, 1998"`), `truth` is the right answer,
    where one is known.

    `inputs` are named arrays as the client takes them, with the batch axis where the model batches. Of a sequence,
    axis 0 of every array counts its requests.
    """

    text: str
    inputs: Arrays
    truth: str = ""


@dataclass(frozen=True)
class System:
    """A model that people ask: an ensemble, a python model that calls others, a stream, a sequence, or a recipe's own.

    `steps` are the models that it is made of or calls, beside the recipe's own; its config.pbtxt names them, too.
    `requests()` gives named arrays, real load whose row i is one request as a person would send it. With `judged` it is
    the raw form of evaluation row i: the answers are scored by the recipe, as the station `pipeline`.
    `interpret` gives a sentence for each row of the outputs; None: the recipe's own does.
    `slos` are what its capacity is searched for where nobody names one.
    Of a sequence, `sequence_interval_s` are the seconds between two requests, and the rows of `requests` are
    [sequences, requests, ...].
    """

    name: str
    steps: tuple[str, ...]
    requests: Callable[[], Arrays]
    question: Callable[[], Question]
    interpret: Callable[[Arrays], list[str]] | None = None
    judged: bool = True
    slos: tuple[str, ...] = ("p99=100ms",)
    sequence_interval_s: float | None = None

"""How a translation model writes text as numbers: pieces of words, cut as SentencePiece's unigram model cuts them.

The bundled model's pieces are words, and German morphemes, all equally likely. A model of transformers brings them as
source.spm, target.spm and vocab.json. Both are read without sentencepiece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

from export.errors import RecipeError
from export.models.translation.phrases import LANGUAGES

END, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"
SPACE = "▁"
FILES = ("source.spm", "target.spm", "vocab.json")

_LANGUAGE = re.compile(">>(.+)<<")
_NORMAL, _USER_DEFINED, _UNIGRAM = 1, 4, 1  # sentencepiece_model.proto
_MORPHEMES = """
    null ein eins eine zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn
    siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert tausend und te
    ste erste zweite dritte vierte fünfte sechste siebte achte neunte zehnte elfte zwölfte r
""".split()  # noqa: SIM905
_COMPOUND = re.compile(" (?:[A-Z][a-zäöüß]+|der|im)\\b| |" + "|".join(sorted(_MORPHEMES, key=len, reverse=True)))
_DIGITS = "\\d(?=\\d\\d(?:\\d{3})*(?!\\d))|\\d{1,2}(?=(?:\\d{3})*(?!\\d))"
"""As numbers are spoken: of each three digits from the right the first, and the other two together."""

_WORDS = re.compile(f"[ -]?[^\\W\\d_]+|{_DIGITS}|.")


@dataclass(frozen=True)
class Vocabulary:
    """`pieces` by id; `source` and `target` are tokenizers, whose own ids do not count.

    `languages` are those that it translates to, each with the ids that stand in front of a text.
    """

    pieces: tuple[str, ...]
    source: Any
    target: Any
    languages: Mapping[str, tuple[int, ...]]

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """By piece."""
        return {piece: index for index, piece in enumerate(self.pieces)}

    @property
    def end(self) -> int:
        return self.ids[END]

    @property
    def unknown(self) -> int:
        return self.ids[UNKNOWN]

    def encode(self, text: str, language: str) -> list[int]:
        """A source text's ids, with the end behind them."""
        return [*self.languages[language], *self._cut(self.source, text), self.end]

    def encode_target(self, text: str) -> list[int]:
        """A translation's ids, with the end behind them."""
        return [*self._cut(self.target, text), self.end]

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for, up to the end."""
        return joined(self.pieces[index] for index in ids)

    def _cut(self, tokenizer: Any, text: str) -> Iterator[int]:
        """What the tokenizer does not know, it gives as it is written, be it "</s>"."""
        cut = tokenizer.encode(text)
        known = zip(cut.ids, cut.tokens, strict=True)
        return (self.ids.get(piece, self.unknown) if own else self.unknown for own, piece in known)


def joined(pieces: Iterable[str]) -> str:
    """The text that pieces make, up to the end."""
    return "".join(takewhile(lambda piece: piece != END, pieces)).replace(SPACE, " ").strip()


def to_metadata(english: Sequence[str], translated: Sequence[str]) -> dict[str, str]:
    """The pieces of the bundled model, as its file of weights carries them."""
    return {"english": json.dumps(english), "translated": json.dumps(translated)}


def from_metadata(metadata: Mapping[str, str]) -> Vocabulary:
    """The inverse of `to_metadata`."""
    return bundled(json.loads(metadata["english"]), json.loads(metadata["translated"]))


def bundled(english: Sequence[str], translated: Sequence[str]) -> Vocabulary:
    """Of the pieces of the bundled model, equally likely, so that the fewest are taken."""
    from tokenizers import Regex, normalizers

    small = [normalizers.NFKC(), normalizers.Lowercase()]
    spaces = [normalizers.Replace(Regex("\\s+"), " "), normalizers.Strip()]
    codes = [f">>{language}<<" for language in LANGUAGES]
    pieces = (END, UNKNOWN, *codes, *sorted({*english, *translated}), PAD)
    return Vocabulary(
        pieces,
        _tokenizer([(piece, -1.0) for piece in english], normalizers.Sequence([*small, *spaces]), parts=_DIGITS),
        _tokenizer([(piece, -1.0) for piece in translated], normalizers.Sequence(spaces)),
        {language: (pieces.index(code),) for language, code in zip(LANGUAGES, codes, strict=True)},
    )


def pieces(texts: Iterable[str], *, compound: bool = False) -> list[str]:
    """The words of texts, each with the space or hyphen in front of it, and single other characters.

    Of compound words, German ones, the morphemes.
    """
    pattern = _COMPOUND if compound else _WORDS
    return sorted({piece.replace(" ", SPACE) for text in texts for piece in pattern.findall(f" {text}")})


def read(folder: Path) -> Vocabulary:
    """That of a Marian model in a folder. Raises RecipeError for one whose pieces are not cut by a unigram model."""
    numbers = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    by_id = tuple(sorted(numbers, key=numbers.__getitem__))
    if list(range(len(by_id))) != sorted(numbers.values()):
        raise RecipeError(f"{folder.name}/vocab.json leaves out ids", file=folder / "vocab.json")
    return Vocabulary(by_id, _spm(folder / "source.spm"), _spm(folder / "target.spm"), _languages(folder, by_id))


def _languages(folder: Path, by_id: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """By the codes of the vocabulary (">>fr<<"), or the one that tokenizer_config.json names."""
    codes: dict[str, tuple[int, ...]] = {
        match[1]: (index,) for index, piece in enumerate(by_id) if (match := _LANGUAGE.fullmatch(piece))
    }
    if codes:
        return codes
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not settings.get("target_lang"):
        raise RecipeError(
            f"{folder.name} does not say which language it translates to",
            remedy='add "target_lang": "fr" (say) to its tokenizer_config.json',
            file=path,
            field="target_lang",
        )
    return {str(settings["target_lang"]): ()}


def _spm(path: Path) -> Any:
    """The tokenizer of a SentencePiece file."""
    from tokenizers import Regex, normalizers
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

    proto = sentencepiece.ModelProto()
    proto.ParseFromString(path.read_bytes())
    if proto.trainer_spec.model_type != _UNIGRAM:
        raise RecipeError(f"{path.parent.name}/{path.name} is no unigram model, the only kind read here", file=path)
    charsmap = proto.normalizer_spec.precompiled_charsmap
    steps: list[Any] = [normalizers.Precompiled(charsmap)] if charsmap else []
    steps += [normalizers.Replace(Regex("\\s+"), " "), normalizers.Strip()]
    used = [(piece.piece, piece.score) for piece in proto.pieces if piece.type in (_NORMAL, _USER_DEFINED)]
    return _tokenizer(used, normalizers.Sequence(steps))


def _tokenizer(scored: Sequence[tuple[str, float]], normalizer: Any, *, parts: str = "") -> Any:
    """With `parts`, pieces do not go beyond what this pattern matches."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.Unigram([(UNKNOWN, 0.0), *scored], unk_id=0))
    tokenizer.normalizer = normalizer
    spaces = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    split = [pre_tokenizers.Split(Regex(parts), "isolated")] if parts else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, *split])
    return tokenizer

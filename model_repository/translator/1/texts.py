"""English texts as the encoder's tokens, and translations as text: the files that export publishes beside this one."""

import json
import re

from tokenizers import Tokenizer

SPACE, NUMBER = "▁", re.compile(r"\d+")


class Texts:
    """`settings` are those of translation.json."""

    def __init__(self, folder):
        self._tokenizer = Tokenizer.from_file(str(folder / "source.json"))
        self.settings = json.loads((folder / "translation.json").read_text(encoding="utf-8"))
        self._pieces = self.settings["pieces"]
        self._ids = {piece: index for index, piece in enumerate(self._pieces)}
        self._most_characters = self.settings["context"] * max(map(len, self._pieces))

    def encode(self, text, language):
        """The tokens of a text, the end behind them. Raises ValueError for one that cannot be translated."""
        languages, context = self.settings["languages"], self.settings["context"]
        if language not in languages:
            raise ValueError(
                f"language is {_short(language)}, and this model translates to {', '.join(sorted(languages))}"
            )
        if not text.strip():
            raise ValueError("text is empty: send at least one word")
        if len(text) > self._most_characters:  # counting the tokens of a long text takes long
            raise ValueError(
                f"text has {len(text):,} characters, which are more than {context} tokens: send less at a time"
            )
        digits, most = max(map(len, NUMBER.findall(text.replace(",", ""))), default=0), self.settings.get("most_digits")
        if most and digits > most:
            raise ValueError(f"text has a number of {digits} digits, and this model knows {most}: send a smaller one")
        cut = self._tokenizer.encode(text)
        tokens = [*languages[language]]
        for own, piece, (begin, stop) in zip(cut.ids, cut.tokens, cut.offsets, strict=True):
            token = self._ids.get(piece) if own else None  # what is not known comes as it is written, be it "</s>"
            if token is None:
                raise ValueError(f"text has {_short(text[begin:stop].strip())}, which this model does not know")
            tokens.append(token)
        tokens.append(self.settings["end"])
        if len(tokens) > context:
            raise ValueError(f"text has {len(tokens)} tokens, and this model reads {context}: send less at a time")
        return tokens

    def decode(self, tokens):
        """The text of a translation, whose last token is the end."""
        return "".join(self._pieces[token] for token in tokens[:-1]).replace(SPACE, " ").strip()


def _short(text, most=40):
    """The text in quotes, cut: a refusal travels in headers, which have little room."""
    return repr(text if len(text) <= most else f"{text[:most]}...")

"""The parser of the command line. It reports an error in one line that names what is accepted."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from export.errors import did_you_mean

STOPPED = 130
"""The exit status of a command that Ctrl-C ended."""
_PLAIN = (
    (r"argument (.+?): expected (?:one|at least one) argument", r"\1 needs a value"),
    (r"argument (.+?): invalid int value: (.*)", r"\1 \2 is not a whole number"),
    (r"argument (.+?): invalid float value: (.*)", r"\1 \2 is not a number"),
    (r"argument (.+?): not allowed with argument (.+)", r"\1 cannot be combined with \2"),
    (r"one of the arguments (.+) is required", r"one of \1 is missing"),
    (r"argument (.+?): (.*)", r"\1: \2"),
)
_CHOICE = re.compile(r"argument (.+?): invalid choice: '?(.*?)'? \(choose from (.*)\)")


class UsageError(Exception):
    """The arguments of a command are invalid; the message names them and what is accepted."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps paragraphs to the terminal, and leaves examples and tables, which are indented, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(part if "\n  " in f"\n{part}" else textwrap.fill(part, width) for part in paragraphs)


class Parser(argparse.ArgumentParser):
    """Errors are one line on stderr and exit status 2; a misspelt name gets the nearest one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)
        self._mixing = False
        self._given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse options also between positional arguments, and refuse unknown ones."""
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing, self._given = True, args or ()
        try:
            parse = super().parse_known_args if self._subparsers else self.parse_known_intermixed_args
            found, unknown = parse(args, namespace)
        finally:
            self._mixing = False
        if unknown:
            self.error(self._unknown(unknown[0]))
        return found, []

    def error(self, message: str) -> NoReturn:
        """Print one line and exit: what is wrong, and where to find what is right."""
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing and (unknown := self._misspelt()):
            message = self._unknown(unknown)
        elif missing:
            message = f"{self._named(missing[1].split(', '))} missing"
        elif choice := _CHOICE.fullmatch(message):
            name, given, known = choice[1], choice[2], choice[3].replace("'", "").split(", ")
            what = f"no command '{given}'" if self._subparsers else f"{name} cannot be '{given}'"
            message = f"{what}{did_you_mean(given, known)}: choose {', '.join(known)}"
        else:
            for pattern, plain in _PLAIN:
                if re.fullmatch(pattern, message):
                    message = re.sub(pattern, plain, message)
                    break
        example = re.search(rf"^  ({self.prog} .*?)(?:   .*)?$", self.description or "", re.MULTILINE)
        see = f", as in `{example[1]}`" if example and message.endswith("missing") else f"; see {self.prog} --help"
        self.exit(2, f"{self.prog}: {' '.join(message.split())}{see}\n")

    def _misspelt(self) -> str:
        """The first unknown option: it may be the missing one, misspelt."""
        known = self._option_string_actions
        return next((word for word in self._given if word[:2] == "--" and word.partition("=")[0] not in known), "")

    def _unknown(self, given: str) -> str:
        if not given.startswith("-"):
            return f"unexpected argument '{given}'"
        return f"no option {given}{did_you_mean(given.partition('=')[0], self._option_string_actions)}"

    def _named(self, required: Sequence[str]) -> str:
        """`MODEL and --slo pNN=LIMIT are`, without what may be left out."""
        shown = []
        for action in self._actions:
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            if name in required and action.nargs != argparse.ZERO_OR_MORE:
                shown.append(f"{name} {action.metavar}" if action.option_strings and action.metavar else name)
        return f"{' and '.join(shown or required)} {'are' if len(shown or required) > 1 else 'is'}"

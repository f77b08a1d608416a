"""The options of `fathom` and Locust for a server that does not let everybody in: TLS, and headers with tokens."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from pathlib import Path
from typing import Any

from clients import TLS
from loadtests.errors import BadRequestError
from loadtests.target.access import Access

_TLS = ("ca", "cert", "key")
DESTINATIONS = (*(f"tls_{name}" for name in _TLS), "header", "header_command")


def add_arguments(command: Any) -> None:
    """Declare `--tls-...` and `--header...` on a parser, or on a group of one."""
    command.add_argument("--tls-ca", metavar="FILE", help="encrypt, and check the server against this PEM file")
    command.add_argument(
        "--tls-cert", metavar="FILE", help="for mutual TLS: this client's own certificate, with --tls-key"
    )
    command.add_argument("--tls-key", metavar="FILE", help="for mutual TLS: the private key of --tls-cert")
    command.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="send this header; NAME=@FILE reads the value from a file (@@ for a value that begins with @); may be "
        "given several times",
    )
    command.add_argument(
        "--header-command",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="send this header with what the shell command prints, such as a token",
    )


def read_access(arguments: argparse.Namespace) -> Access:
    """Reads the files and runs the commands. Raises BadRequestError, which never quotes a header's value."""
    files = {name: getattr(arguments, f"tls_{name}") for name in _TLS}
    given = [f"--tls-{name}" for name, file in files.items() if file is not None]
    if (files["cert"] is None) != (files["key"] is None):
        raise BadRequestError(
            f"{given[-1]} is one half of mutual TLS: give --tls-cert FILE and --tls-key FILE", field="tls"
        )
    tls = TLS(**files) if given else None
    try:
        if tls is not None:
            tls.credentials()
    except ValueError as error:
        raise BadRequestError(f"--tls-{error}", field="tls") from None
    return Access(tls, _headers(arguments))


def repeated(arguments: argparse.Namespace) -> str:
    """The same options for another command line, without secrets."""
    words = []
    for name in _TLS:
        if (file := getattr(arguments, f"tls_{name}")) is not None:
            words.append(f" --tls-{name} {shlex.quote(str(file))}")
    for header in arguments.header:
        name, _, value = header.partition("=")
        words.append(f" --header {shlex.quote(header)}" if _is_file(value) else f" --header {shlex.quote(name)}=...")
    words += [f" --header-command {shlex.quote(command)}" for command in arguments.header_command]
    return "".join(words)


def _headers(arguments: argparse.Namespace) -> dict[str, str]:
    headers = {}
    for option, texts in (("--header", arguments.header), ("--header-command", arguments.header_command)):
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals or not name:
                form = "NAME=VALUE" if option == "--header" else "NAME=COMMAND"
                raise _unusable(f"{option} '{name}' is not a header: write {form}")
            if option == "--header-command":
                headers[name] = _printed(name, value)
            else:
                headers[name] = _read(name, value) if _is_file(value) else value.removeprefix("@")
    return headers


def _unusable(message: str) -> BadRequestError:
    return BadRequestError(message, field="headers")


def _is_file(value: str) -> bool:
    return value.startswith("@") and not value.startswith("@@")


def _read(name: str, value: str) -> str:
    path = Path(value[1:])
    try:
        found = path.read_text().strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise _unusable(f"--header {name}: '{path}' cannot be read ({why}): check the path") from None
    if not found:
        raise _unusable(f"--header {name}: '{path}' is empty: write the header's value into it")
    return found


def _printed(name: str, command: str) -> str:
    done = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise _unusable(f"--header-command {name}: `{command}` ended with exit status {done.returncode}")
    found = done.stdout.decode("utf-8", "replace").strip()
    if not found:
        raise _unusable(f"--header-command {name}: `{command}` printed nothing: let it print the header's value")
    return found

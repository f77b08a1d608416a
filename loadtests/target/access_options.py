"""The options of `fathom` and Locust for TLS and for headers with tokens."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from pathlib import Path
from typing import Any

from clients import TLS
from loadtests.errors import BadRequestError
from loadtests.target.access import Access

DESTINATIONS = ("tls_ca", "own_cert", "own_key", "header", "header_command")


def add_arguments(command: Any, *, own: str = "--tls") -> None:
    """Declare them on a parser, or on a group of one. `own` begins the options for the caller's own certificate."""
    command.add_argument(
        "--tls-ca", metavar="FILE", help="encrypt with TLS, and verify the server with this PEM file of CA certificates"
    )
    command.add_argument(
        f"{own}-cert",
        dest="own_cert",
        metavar="FILE",
        help=f"certificate of this client for mutual TLS, as a PEM file; needs {own}-key",
    )
    command.add_argument(f"{own}-key", dest="own_key", metavar="FILE", help=f"private key of {own}-cert, as a PEM file")
    command.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="send this header with every request; NAME=@FILE reads the value from a file, and @@ stands for a leading "
        "@; can be repeated",
    )
    command.add_argument(
        "--header-command",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="send this header with the output of a shell command, such as a token; can be repeated",
    )


def read_access(arguments: argparse.Namespace, *, own: str = "--tls") -> Access:
    """Reads the files and runs the commands. Raises BadRequestError, which never quotes a header's value."""
    ca, cert, key = arguments.tls_ca, arguments.own_cert, arguments.own_key
    if (cert is None) != (key is None):
        raise BadRequestError(
            f"mutual TLS needs both {own}-cert FILE and {own}-key FILE: add the missing one", field="tls"
        )
    tls = None if ca is None and cert is None else TLS(ca, cert, key)
    try:
        if tls is not None:
            tls.credentials()
    except ValueError as error:
        option = "--tls" if str(error).startswith("ca") else own
        raise BadRequestError(f"{option}-{error}", field="tls") from None
    return Access(tls, _headers(arguments))


def repeated(arguments: argparse.Namespace) -> str:
    """The options for another command line, without secrets."""
    files = {"--tls-ca": arguments.tls_ca, "--tls-cert": arguments.own_cert, "--tls-key": arguments.own_key}
    words = [f" {option} {shlex.quote(file)}" for option, file in files.items() if file is not None]
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

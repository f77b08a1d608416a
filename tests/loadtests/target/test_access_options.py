"""The options for a server behind TLS and tokens."""

from __future__ import annotations

import argparse

import pytest

from loadtests.errors import BadRequestError
from loadtests.target import access_options


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    access_options.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "headers"),
    [
        ([], {}),
        (["--header", "authorization=Bearer a=b"], {"authorization": "Bearer a=b"}),
        (["--header", "a=1", "--header", "b="], {"a": "1", "b": ""}),
        (["--header", "a=@@at"], {"a": "@at"}),
        (["--header", "authorization=@token"], {"authorization": "Bearer from-a-file"}),
        (["--header-command", "a=printf 'Bearer %s\\n' x=y"], {"a": "Bearer x=y"}),
    ],
    ids=["none", "as it is", "several", "a literal at sign", "of a file", "of a command"],
)
def test_headers(words, headers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("Bearer from-a-file\n")
    assert access_options.read_access(arguments(*words)).headers == headers


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--header", "token"], "'token'"),
        (["--header", "=secret"], "NAME=VALUE"),
        (["--header", "a=@missing"], "'missing'"),
        (["--header", "a=@empty"], "'empty'"),
        (["--header", "a=sécret"], "'a'"),
        (["--header", "a b=secret"], "'a b'"),
        (["--header-command", "a=exit 3"], "exit status 3"),
        (["--header-command", "a=true"], "`true`"),
        (["--tls-cert", "me.pem"], "--tls-key"),
        (["--tls-ca", "missing"], "--tls-ca='missing'"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_secret(words, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(BadRequestError) as refused:
        access_options.read_access(arguments(*words))
    assert names in str(refused.value)
    assert "secret" not in str(refused.value)


def test_options_for_another_command_line_have_no_secrets():
    given = arguments(
        "--tls-ca", "my ca", "--header", "a=s3cret", "--header", "b=@my file", "--header-command", "c=d e"
    )
    shown = " --tls-ca 'my ca' --header a=... --header 'b=@my file' --header-command 'c=d e'"
    assert access_options.repeated(given) == shown

"""`fathom infer`: what may be asked with which files and options, and what comes out."""

import contextlib
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from certificates import issue_all, mutual_flags
from complete_server import complete_server
from freezing import frozen
from generation_models import write_tensorrt_llm, write_vllm
from identity_models import write_identity
from interrupting import interrupt
from PIL import Image
from python_models import write_counter

from clients import Classification
from fathom import cli
from fathom.console.answers import ranked_as_json

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "clients.md").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`echo` (texts and numbers), `picture` (UINT8 pixels), `large` (300 kB), and what streams: `counter`,
    `vllm_model`, `slow_vllm` and `tensorrt_llm_bls`; mutual TLS."""
    folder = tmp_path_factory.mktemp("infer")
    repository = folder / "model_repository"
    write_identity(repository / "echo", {"text": ("BYTES", [1]), "n": ("FP32", [1])}, max_batch_size=8, optional=True)
    write_identity(repository / "picture", {"pixels": ("UINT8", [4, 6, 3])}, max_batch_size=2)
    write_identity(repository / "large", {"x": ("FP32", [-1])})
    write_counter(repository)
    write_vllm(repository, "vllm_model")
    write_tensorrt_llm(repository, "tensorrt_llm_bls")
    write_vllm(repository, "slow_vllm", pause_s=0.05)
    issue_all(folder)
    with complete_server(repository, extra=mutual_flags(folder)) as server:
        server.ca, server.caller = folder / "authority.pem", folder / "caller"
        yield server


@pytest.fixture
def ask(server, tmp_path, monkeypatch, capsys):
    """Run `fathom infer` in an empty folder: (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    if not server.is_alive():  # Triton 2.51 can die some time after it was frozen
        server.stop()
        server.start()

    def run(*arguments):
        files = ["--tls-ca", server.ca, "--tls-cert", f"{server.caller}.pem", "--tls-key", f"{server.caller}.key"]
        status = cli.main(["infer", *map(str, (*arguments, "--server", server.grpc_url, *files))])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def picture(width, height, colour=(10, 20, 30)):
    data = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(data, "png")
    return data.getvalue()


GIVEN = {
    "a text as it is": ("text=hello", None, "'hello'"),
    "a text that begins with @": ("text=@@home", None, "'@home'"),
    "a text file, without its last line end": ("text=@t.txt", b"two\nlines\n", r"'two\nlines'"),
    "a text file's byte-order mark is no text": ("text=@t.txt", b"\xef\xbb\xbfmark\r\n", "'mark'"),
    "any other file, byte for byte": ("text=@t.bin", b"a\n", r"'a\n'"),
    "bytes that are no text": ("text=@t.bin", b"\xff\xfea", r"'\\xff\\xfea'"),
    "a JSON list of texts is a batch": ("text=@t.json", b'["a", "b"]', "BYTES [2, 1] = 'a', 'b'"),
    "a JSON file with a byte-order mark": ("text=@t.json", b'\xef\xbb\xbf["a"]', "BYTES [1, 1] = 'a'"),
    "a number": ("n=1.5", None, "[1, 1] = 1.5"),
    "a JSON list is a batch": ("n=[[1], [2]]", None, "[2, 1] = 1, 2"),
    "a JSON file": ("n=@n.json", b"[[1], [2], [3]]", "[3, 1] = 1, 2, 3"),
    "numbers in a file without a suffix": ("n=@n", b"7", "[1, 1] = 7"),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_may_be_given(case, ask, tmp_path):
    argument, content, shown = GIVEN[case]
    if content is not None:
        (tmp_path / argument.partition("@")[2]).write_bytes(content)
    status, out, err = ask("echo", argument)
    assert (status, err) == (0, "")
    assert shown in out


def test_arrays_from_npy_files_and_back(ask, tmp_path):
    array = np.arange(12, dtype=np.float32)
    np.save(tmp_path / "x.npy", array)
    np.save(tmp_path / "t.npy", np.array(["a", "naïve"]))
    status, out, _ = ask("large", "x=@x.npy", "--output", "y.npy")
    assert (status, out) == (0, "y.npy: x_out: float32 [12]\n")
    assert np.array_equal(np.load(tmp_path / "y.npy"), array)
    status, out, _ = ask("echo", "text=@t.npy", "n=[[1], [2]]", "--output", "all.npz")
    assert (status, out) == (0, "all.npz: text_out: BYTES [2, 1], n_out: float32 [2, 1]\n")
    with np.load(tmp_path / "all.npz") as saved:
        assert saved["text_out"].ravel().tolist() == [b"a", "naïve".encode()]
        assert saved["n_out"].tolist() == [[1], [2]]


def test_standard_input(ask, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert "'piped'" in ask("echo", "text=@-")[1]


def test_pictures_become_pixels_of_the_models_size(ask, tmp_path):
    (tmp_path / "right.png").write_bytes(picture(6, 4))
    (tmp_path / "large.png").write_bytes(picture(60, 40))
    status, out, err = ask("picture", "pixels=@right.png", "pixels=@large.png", "--json")
    assert status == 0
    assert err == "large.png was scaled from 60x40 to 6x4\n"
    answer = json.loads(out)["outputs"]["pixels_out"]
    assert answer["shape"] == [2, 4, 6, 3]
    assert answer["data"][:3] == answer["data"][-3:] == [10, 20, 30]


def test_parts_of_a_stream_are_shown_as_they_come(ask):
    status, out, err = ask("counter", "count=[3]", "pause_s=[0.01]")
    assert status == 0
    assert [line.split("  ")[-1] for line in out.splitlines()] == [f"number: int32 [1] = {n}" for n in range(3)]
    assert err.startswith("3 parts, ")
    parts = json.loads(ask("counter", "count=[2]", "pause_s=[0.05]", "--json")[1])["parts"]
    assert [part["outputs"]["number"]["data"] for part in parts] == [[0], [1]]
    assert parts[1]["at_ms"] - parts[0]["at_ms"] > 25


def test_a_text_in_parts_is_typed(ask):
    asked = ["vllm_model", "text_input=count", "stream=True", 'sampling_parameters={"max_tokens": 4}']
    status, out, err = ask(*asked, "return_finish_reason=true")
    assert (status, out) == (0, "1 2 3 4\n")
    assert re.fullmatch(r"4 parts, time to first part .* ms, .* parts/s, finish reason length\n", err)
    answer = json.loads(ask(*asked, "--json")[1])
    assert (answer["text"], answer["interrupted"]) == ("1 2 3 4", False)
    assert [part["text"] for part in answer["parts"]] == ["1", " 2", " 3", " 4"]


@pytest.mark.parametrize(
    "command", re.findall(r"^fathom infer (vllm_model .*|tensorrt_llm_bls .*)$", PAGE, re.MULTILINE)
)
def test_what_the_page_shows_of_language_models(ask, command):
    status, out, _ = ask(*shlex.split(command))
    assert (status, out) == (0, " ".join(str(n + 1) for n in range(200)) + "\n")


def test_a_text_is_there_before_its_end_and_stays_after_ctrl_c(server, tmp_path):
    """Through a pipe: the first piece is read while the others are waited for."""
    files = ["--tls-ca", server.ca, "--tls-cert", f"{server.caller}.pem", "--tls-key", f"{server.caller}.key"]
    asked = ["slow_vllm", "text_input=count", "stream=true", 'sampling_parameters={"max_tokens": 1000}']
    command = [sys.executable, "-m", "fathom.cli", "infer", *asked, "--server", server.grpc_url, *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = process.stdout.read(3)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=20)
    assert (process.returncode, first) == (130, "1 2")
    assert (first + rest).split() == [str(n + 1) for n in range(len((first + rest).split()))]
    assert rest.endswith("\n")
    assert err == "fathom infer: stopped\n"


def test_ctrl_c_leaves_the_json_of_what_came(ask):
    asked = ["slow_vllm", "text_input=count", "stream=true", 'sampling_parameters={"max_tokens": 1000}', "--json"]
    with interrupt(0.7) as timer:
        timer.start()
        status, out, _ = ask(*asked)
    answer = json.loads(out)
    assert (status, answer["interrupted"]) == (130, True)
    assert answer["text"].split() == [str(n + 1) for n in range(len(answer["parts"]))]


def test_an_error_in_the_middle_of_a_text_is_a_line_of_its_own(ask):
    status, out, err = ask(
        "slow_vllm", "text_input=count", "stream=true", 'sampling_parameters={"max_tokens": 1000}', "--timeout", "0.5"
    )
    assert (status, out[:3], out[-1]) == (2, "1 2", "\n")
    assert err.startswith("fathom infer: ")
    assert err.count("\n") == 1


def test_a_quick_look_at_latency_that_claims_no_capacity(ask):
    status, out, _ = ask("echo", "n=1", "--repeat", "40", "--concurrency", "4")
    answer, look, caveat = out.splitlines()
    assert status == 0
    assert answer == "n_out: float32 [1, 1] = 1"
    assert all(word in look for word in ("40", "p50", "p90", "p99", " ms", "/s"))
    assert "fathom capacity echo" in caveat
    look = json.loads(ask("echo", "n=1", "--repeat", "9", "--json")[1])["repeat"]
    assert (look["requests"], look["concurrency"], look["errors"], look["loop"]) == (9, 1, {}, "closed")
    assert 0 < look["p50_ms"] <= look["p90_ms"] <= look["p99_ms"]


def test_a_look_at_a_server_that_hangs_is_given_up(ask, server):
    with contextlib.ExitStack() as freeze:
        threading.Timer(1.5, freeze.enter_context, [frozen(server)]).start()
        look = ask("echo", "n=1", "--repeat", "1000000", "--concurrency", "2", "--timeout", "0.4")[1].splitlines()[1]
    assert re.search(r"\b[34] DeadlineExceeded\b", look)


def test_ctrl_c_shows_the_latencies_until_then(ask):
    with interrupt(1.5) as timer:
        timer.start()
        status, out, _ = ask("echo", "n=1", "--repeat", "1000000", "--concurrency", "2", "--json")
    look = json.loads(out)["repeat"]
    assert status == 130
    assert look["interrupted"]
    assert 0 < look["requests"] < 1_000_000
    assert look["p50_ms"] > 0


def test_shared_memory_gives_the_same_answer(ask, tmp_path):
    array = np.random.default_rng(0).normal(size=80_000).astype(np.float32)
    np.save(tmp_path / "x.npy", array)
    assert ask("large", "x=@x.npy", "--shared-memory", "--output", "y.npy", "--repeat", "5")[0] == 0
    assert np.array_equal(np.load(tmp_path / "y.npy"), array)


MISTAKES = {
    "a picture where only the author knows how": (["large", "x=@p.png"], ["FP32 [-1]", "p.png", ".npy"]),
    "a picture that is none": (["picture", "pixels=@n.png"], ["'n.png'"]),
    "texts that are none": (["echo", "text=@n.json"], ["'text'", "n.json"]),
    "a JSON file of another encoding": (["echo", "text=@u.json"], ["'text'", "u.json", "UTF-16"]),
    "a text file of another encoding": (["echo", "text=@l.txt"], ["'text'", "l.txt line 2"]),
    "values of several shapes": (["picture", f"pixels={[1]}", "pixels=[[1, 2]]"], ["[1, 2]", "[1]"]),
    "several values without a batch": (["large", "x=[1]", "x=[2]"], ["'x'", "2"]),
    "a forgotten escape": (["echo", "text=@home"], ["'home'", "@@"]),
    "an .npy of objects": (["large", "x=@o.npy"], ["'o.npy'"]),
    "several tensors for one .npy": (["echo", "n=1", "text=a", "--output", "y.npy"], [".npz"]),
    "a folder that is not there": (["echo", "n=1", "--output", "no/y.npy"], ["'no/y.npy'"]),
    "an unknown file type": (["echo", "n=1", "--output", "y.txt"], [".npy", ".npz"]),
    "a header without a value": (["echo", "n=1", "--header", "token"], ["'token'", "NAME=VALUE"]),
    "concurrency of nothing": (["echo", "n=1", "--concurrency", "3"], ["--repeat N"]),
    "latencies of a stream": (["counter", "count=1", "pause_s=0", "--repeat", "3"], ["'counter'", "--repeat"]),
    "a stream to a file": (["counter", "count=1", "pause_s=0", "--output", "y.npy"], ["'counter'", "--output"]),
    "an error of the model before any text": (
        ["vllm_model", "text_input=count", "stream=true", 'sampling_parameters={"max_tokens": 0}'],
        ["'vllm_model'", "max_tokens"],
    ),
    "an answer beyond the bound": (["large", f"x={[0] * 1000}", "--max-answer-bytes", "3000"], ["--max-answer-bytes"]),
    "a bound that gRPC has not": (["large", "x=[0]", "--max-answer-bytes", "3000000000"], ["--max-answer-bytes 3"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_exit_status_2(case, ask, tmp_path):
    (tmp_path / "p.png").write_bytes(picture(6, 4))
    (tmp_path / "n.png").write_bytes(b"no picture")
    (tmp_path / "n.json").write_text("[1, 2]")
    (tmp_path / "u.json").write_text('["a"]', encoding="utf-16")
    (tmp_path / "l.txt").write_bytes("a\né".encode("latin-1"))
    np.save(tmp_path / "o.npy", np.array([None]), allow_pickle=True)
    arguments, words = MISTAKES[case]
    status, out, err = ask(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("fathom infer: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_tls_needs_a_named_server_and_a_file(server, capsys):
    assert cli.main(["infer", "echo", "n=1", "--tls-ca", str(server.ca)]) == 2
    assert "--server" in capsys.readouterr().err
    assert cli.main(["infer", "echo", "n=1", "--server", server.grpc_url, "--tls-ca", "no.pem"]) == 2
    assert "--tls-ca='no.pem'" in capsys.readouterr().err


def test_nobody_at_the_address_is_a_short_line(capsys):
    assert cli.main(["infer", "m", "x=1", "--server", "127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fathom infer: ")
    assert "127.0.0.1:9" in said
    assert len(said) < 100


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("localhost", "--server 'localhost'"),
        ("http://localhost:8001", "'localhost:8001'"),
        ("::1:8001", "'[::1]:8001'"),
        ("nohost.invalid:1", "nohost.invalid"),
    ],
)
def test_an_address_that_cannot_be_right_is_a_short_line(server, said, capsys):
    assert cli.main(["infer", "m", "x=1", "--server", server, "--timeout", "5"]) == 2
    *warnings, line = capsys.readouterr().err.splitlines()
    assert said in line
    assert len(warnings) == (server == "nohost.invalid:1")
    assert all("--tls-ca" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("values", "key", "why"),
    [
        ([0.7, 0.2], "probability", "the most likely of some classes"),
        ([0.9, 0.8], "score", "together more than one"),
        ([3.1, -0.4], "score", "logits"),
    ],
)
def test_only_what_adds_up_to_one_is_called_a_probability(values, key, why):
    labels = [Classification("name", value, index) for index, value in enumerate(values)]
    assert [set(entry) for entry in ranked_as_json(labels)] == [{"label", key}] * 2, why

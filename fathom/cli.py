"""The `fathom` command: a table of subcommands, and the one place that turns errors into a line and an exit status.

Exit status: 0 done; 1 a check, an SLO or an accuracy gate failed; 2 the command could not be carried out; 130 stopped
by Ctrl-C, 141 by a reader of the output that went away.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn

from fathom.console.arguments import STOPPED, Parser
from loadtests.text import guard_output

COMMANDS = {
    "demo": "export, serve, query and measure the bundled models",
    "export": "export models to the model repository and measure accuracy",
    "add": "add your ONNX, PyTorch, Transformers or scikit-learn model",
    "precision": "compare FP32, FP16 and INT8: size, accuracy and speed",
    "check": "check configurations, artefacts, engines and manifests",
    "serve": "start Triton on this machine and keep it until Ctrl-C",
    "infer": "send a request to a model and print the answer",
    "capacity": "measure the highest request rate that meets your SLOs",
    "tune": "find and write the configuration with the highest capacity",
    "load": "send one schedule or recorded trace and judge the result",
    "report": "write the HTML report again, or compare measurements",
    "plan": "compute replicas, queue limits, latency and cost for a rate",
    "publish": "put a new model version into service; roll back on failure",
}


_REMEDIES = {
    errno.ENOSPC: "free disk space, or set TMPDIR to a folder with space",
    errno.EDQUOT: "free disk space, or set TMPDIR to a folder with space",
    errno.EMFILE: "raise the limit with ulimit -n",
    errno.ENFILE: "close programs: the whole machine has too many open files",
    errno.ENOMEM: "give the process more memory, or request less work",
    errno.EAGAIN: "raise the limit of processes and threads with ulimit -u",
}
"""What to do when the operating system has run out of a resource, by error number."""
_AS_OPTIONS = (
    (r"tls=TLS\(ca=FILE\)", "--tls-ca FILE"),
    (r"(?:tls=)?TLS\((?:\.\.\., )?cert=FILE, key=FILE\)", "--tls-cert FILE and --tls-key FILE"),
    (r"headers=\{'([^']+)': (\w+)\}", r"--header \1=\2"),
)
_LONGEST_LINE = 4000
_Handler = signal.Handlers | Callable[[int, FrameType | None], None]


def entry() -> NoReturn:
    """The console script: `main` in a process of its own, which ends after Ctrl-C whatever its libraries wait for."""
    stopped: list[int] = []

    def leave() -> None:
        if not stopped:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        # An interrupted call leaves threads and locks inside gRPC, for which the interpreter's end may wait for ever.
        os._exit(stopped[0])

    atexit.register(leave)  # the first one registered runs last, after those that end children and remove folders
    status = main()
    if status == STOPPED:
        stopped.append(status)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    guard_output()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC would log of an answer, our error says
    given = sys.argv[1:] if arguments is None else list(arguments)
    wanted = next((word for word in given if not word.startswith("-")), "")
    with _handled(signal.SIGINT, signal.SIG_DFL):  # some libraries answer Ctrl-C with a traceback while imported
        top = parser(wanted)
        options = top.parse_args(given)
    if options.version:
        import fathom

        print(f"fathom {fathom.__version__}")
        return 0
    if not options.command:
        top.print_help(sys.stderr)
        return 2
    with _handled(signal.SIGTERM, _terminate):  # like Ctrl-C it unwinds, so that servers are stopped and results kept
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return _stopped(options.command)
    except Exception as error:
        if _was_interrupted(error):
            return _stopped(options.command)
        if not (message := _message(error)):
            raise
        print(f"fathom {options.command}: {_in_one_line(message)}", file=sys.stderr)
        return 2
    return status


def parser(wanted: str = "") -> Parser:
    """The command line, with the arguments of the one subcommand that is wanted: the others need not be loaded."""
    top = Parser(
        prog="fathom",
        description="Take a trained model to a measured Triton deployment.",
        epilog="Start with `fathom demo`. `fathom COMMAND --help` explains a command.",
    )
    top.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    subcommands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    for name, summary in COMMANDS.items():
        if name != wanted:
            subcommands.add_parser(name, help=summary)
            continue
        module = import_module(f"fathom.commands.{name}")
        command = subcommands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def _message(error: Exception) -> str:
    """The line to print for an error of the caller or the machine; empty for a bug, which needs a traceback."""
    # Imported late, since most commands end well.
    from clients import InferenceError
    from export.errors import ExportError
    from fathom.console.arguments import UsageError
    from loadtests.errors import LoadTestError
    from server import TritonServerError

    if isinstance(error, (UsageError, ExportError, TritonServerError, InferenceError, LoadTestError)):
        return _with_options(str(error))
    if isinstance(error, OSError):  # no permission, no space, a folder where a file should be, too many open files
        return _of_the_system(error)
    if isinstance(error, UnicodeEncodeError):
        return f"'{error.object}' is not UTF-8 text: correct the argument"
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in str(error)):
        return f"not enough memory ({error or 'none is left'}): give the process more, or request less work"
    return ""


def _with_options(message: str) -> str:
    """The clients' errors name arguments of Python; a person at a terminal gets the options that mean the same."""
    for argument, option in _AS_OPTIONS:
        message = re.sub(argument, option, message)
    return message


def _in_one_line(message: str) -> str:
    """A server or a file may have a name of megabytes, which the middle of a message leaves out."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 500]} ... {line[-500:]}"


def _of_the_system(error: OSError) -> str:
    """What the operating system refused, and what to do where a resource is used up."""
    code = error.errno
    if code is None and re.search(r"\d requested and \d+ written", str(error)):  # numpy's way to say so
        code = errno.ENOSPC
    said = error.strerror or (os.strerror(code) if code else str(error))
    named = f"{error.filename}: {said}" if error.filename else said
    remedy = _REMEDIES.get(code or 0)
    return f"{named}: {remedy}" if remedy else named


@contextlib.contextmanager
def _handled(
    number: signal.Signals, handler: signal.Handlers | Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """The signal is handled so during the block; one that is ignored, as in the background of a shell, stays so."""
    before = signal.getsignal(number)
    if before is not signal.SIG_IGN:
        signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: an import that it hits fails with an error of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _stopped(command: str) -> int:
    print(f"fathom {command}: stopped", file=sys.stderr)
    return STOPPED


if __name__ == "__main__":
    entry()

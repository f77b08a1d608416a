"""The `fathom` command: composes export, server, clients and loadtests."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`__version__`, read when it is asked for: that takes as long as the rest of `fathom --help`."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fathom-serving")
    except PackageNotFoundError:  # run from a bare copy, as on a GPU machine without network
        return "0+copy"

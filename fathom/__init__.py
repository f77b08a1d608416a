"""The `fathom` command: composes export, server, clients and loadtests."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fathom-serving")
except PackageNotFoundError:  # run from a bare copy, as on a GPU machine without network
    __version__ = "0+copy"

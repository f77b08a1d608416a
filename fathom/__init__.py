"""The `fathom` command: composes export, server, clients and loadtests."""

from importlib.metadata import version

__version__ = version("fathom-serving")

"""The `fathom` command: composes export, server, clients and loadtests."""

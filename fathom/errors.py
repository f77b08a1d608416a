"""Errors of the command line itself."""


class UsageError(Exception):
    """The arguments cannot be carried out; the message says which, and what would be accepted."""

"""Whether the outputs of a run can be split by the rows of its requests.

A graph that drops rows (a score threshold, NonZero, Compress) or adds some leaves no way to tell whose a row is.
"""

from __future__ import annotations

PROVING = 32
"""Requests that a graph answers alone before any are joined, where it does not declare that inputs and outputs share
their first axis: an equal sum of rows is no proof, but rows of single requests are."""


class SplitError(Exception):
    """An output that has other rows than the requests brought."""


def same_first_axis(session):
    """Whether the graph calls the first axes of all its inputs and outputs by one name."""
    tensors = [*session.get_inputs(), *session.get_outputs()]
    names = {tensor.shape[0] if tensor.shape else None for tensor in tensors}
    return len(names) == 1 and isinstance(names.pop(), str)


def require_rows(name, shape, rows):
    """Raise SplitError unless the first axis of the output `name` is as long as the input of its run, `rows`."""
    if not shape:
        raise SplitError(f"output '{name}' has no axis for a batch: {_REMEDY}")
    if shape[0] != rows:
        raise SplitError(f"output '{name}' has {shape[0]} rows where the input has {rows}: {_REMEDY}")


_REMEDY = "the graph does not answer row by row, so write max_batch_size: 0 and whole shapes in dims"

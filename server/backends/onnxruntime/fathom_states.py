"""Implicit state: the tensors that a sequence model carries from one request of a sequence to its next.

Triton gives each request the initial values and has no way for a python backend to replace them: they are kept here. It
sends all requests of a sequence to one instance, in order.
"""

from __future__ import annotations

import triton_python_backend_utils as pb_utils
from fathom_signature import states


class States:
    """The states of the sequences that one instance computes."""

    def __init__(self, config):
        self.names = {state["input_name"]: state["output_name"] for state in states(config)}
        oldest = config.get("sequence_batching", {}).get("oldest")
        slots = config["max_batch_size"] if oldest is None else int(oldest.get("max_candidate_sequences", 0))
        self._most = 2 * max(1, slots)
        self._kept = {}  # the sequence used last stands last

    def feed(self, request):
        """{state input: array} of this request, of those that an earlier request of its sequence left."""
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            self._kept.pop(request.correlation_id(), None)
        return self._kept.get(request.correlation_id(), {})

    def keep(self, request, outputs):
        """Keep {state output: array} of this request for the next of its sequence, or forget it with the last.

        A sequence that Triton drops as idle has no last request. Triton has no more of them than slots, so beyond twice
        as many the one that is unused for longest is such a sequence.
        """
        sequence = request.correlation_id()
        if not sequence:
            return  # fills an empty slot of the direct strategy
        self._kept.pop(sequence, None)
        if not request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            self._kept[sequence] = {name: outputs[output] for name, output in self.names.items()}
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

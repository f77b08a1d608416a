"""ONNX Runtime as a Triton python-based backend.

Loads model folders with `backend: "onnxruntime"`, unchanged, in a server that ships no C++ ONNX Runtime backend. It
answers and refuses as the official backend does; docs/reference/backend.md lists where it differs, and a test checks
that list. It refuses, by name, what it does not know: a typing error in config.pbtxt that the official backend would
ignore becomes a failed load with a reason.

Runs inside Triton's python stub, so it imports only numpy, onnxruntime, the stub's own module and its neighbours here.
Triton starts one more stub for each model only to complete its configuration: onnxruntime is imported where it is used.
"""

from __future__ import annotations


class TritonPythonModel:
    """One model instance."""

    @staticmethod
    def auto_complete_config(config):
        """Fill in what config.pbtxt leaves out: inputs, outputs, max_batch_size and dynamic batching."""
        given = config.as_dict()
        if (given["input"] or given.get("batch_input")) and given["output"]:
            return config
        from fathom_complete import completed_from_graph

        return completed_from_graph(given)

    def initialize(self, args):
        from fathom_instance import Instance

        self.execute = Instance(args).execute

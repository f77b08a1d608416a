"""The language model in ONNX Runtime, with a slot of fixed length per request for the keys and values of its tokens."""

import itertools
from pathlib import Path

import numpy as np
import onnxruntime as ort


class Decoder:
    """Runs over the caches of `slots` requests of at most `context` tokens; for one thread only.

    `prefix` is how the token ids of every request begin, which is computed once.
    The cache is two arrays [slots, heads, context, head size] a layer. ONNX Runtime reads the past of a run there and
    writes the present to the same place, so that nothing is copied; `step` takes the first slots as its batch.
    """

    def __init__(self, path, *, slots, context, threads, prefix):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.slots, self.context = slots, context
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        outputs = {tensor.name: tensor.shape for tensor in self._session.get_outputs()}
        self._vocabulary = outputs["logits"][-1]
        shapes = {tensor.name: tensor.shape for tensor in self._session.get_inputs()}
        layers = sum(name.endswith(".key") for name in shapes)
        self._names = [f"{layer}.{kind}" for layer, kind in itertools.product(range(layers), ("key", "value"))]
        _, heads, _, size = shapes[f"past_key_values.{self._names[0]}"]
        shape = (slots, heads, context, size)
        require_memory(len(self._names) * int(np.prod(shape)) * 4, f"{slots} slots of {context} tokens")
        self._caches = [np.full(shape, 0, np.float32) for _ in self._names]  # written to, so that the memory is there
        self._ids = np.zeros((slots, 1), np.int64)
        self._lengths = np.zeros(slots, np.int32)
        self._total = np.zeros(1, np.int32)
        self._at = np.zeros(1, np.int64)
        self._logits = np.zeros((slots, 1, self._vocabulary), np.float32)
        self._steps = [self._binding(0, rows) for rows in range(1, slots + 1)]
        self._prefills = [self._binding(slot, 1) for slot in range(slots)]
        if prefix:
            self.prefill(0, np.array(prefix, np.int64), 0)
        self._prefix = [cache[0, :, : len(prefix)].copy() for cache in self._caches]

    @property
    def cache_bytes(self):
        """Memory of the keys and values."""
        return sum(cache.nbytes for cache in self._caches)

    def begin(self, slot):
        """Put the prefix into the slot. Returns its tokens."""
        length = self._prefix[0].shape[1]
        for cache, prefix in zip(self._caches, self._prefix, strict=True):
            cache[slot, :, :length] = prefix
        return length

    def prefill(self, slot, ids, past):
        """Add `ids`, INT64 [n], behind the `past` tokens of the slot; the logits [vocabulary] after the last."""
        ids = np.ascontiguousarray(ids)
        binding = self._prefills[slot]
        _bind_input(binding, "input_ids", ids.reshape(1, -1))
        self._total[0] = past + len(ids)
        self._lengths[0] = self._total[0] - 1
        self._at[0] = len(ids) - 1
        self._session.run_with_iobinding(binding)
        return self._logits[0, 0]

    def step(self, tokens, lengths):
        """Add one token to each of the first slots, which have `lengths` tokens; logits [rows, vocabulary].

        They are valid until the next call.
        """
        rows = len(tokens)
        self._ids[:rows, 0] = tokens
        self._lengths[:rows] = lengths
        self._total[0] = max(lengths) + 1
        self._at[0] = 0
        self._session.run_with_iobinding(self._steps[rows - 1])
        return self._logits[:rows, 0]

    def copy(self, source, target, length):
        """Make the first `length` tokens of the slot `target` those of `source`."""
        for cache in self._caches:
            cache[target, :, :length] = cache[source, :, :length]

    def _binding(self, first, rows):
        """Of a run over so many slots from `first`."""
        binding = self._session.io_binding()
        _bind_input(binding, "input_ids", self._ids[:rows])
        _bind_input(binding, "seqlens_k", self._lengths[:rows])
        _bind_input(binding, "total_sequence_length", self._total)
        _bind_input(binding, "logits_at", self._at)
        _bind_output(binding, "logits", self._logits[:rows])
        for name, cache in zip(self._names, self._caches, strict=True):
            _bind_input(binding, f"past_key_values.{name}", cache[first : first + rows])
            _bind_output(binding, f"present.{name}", cache[first : first + rows])
        return binding


def require_memory(needed, what):
    """Raise MemoryError unless the machine, or its container, has `needed` bytes left."""
    if needed > (left := available_bytes()):
        raise MemoryError(f"{what} take {needed / 1e6:,.0f} MB, and {left / 1e6:,.0f} MB are available: give fewer")


def available_bytes(group=Path("/sys/fs/cgroup")):
    """Of the machine, or of the container whose control group this is, whichever has less."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    left = [int(lines["MemAvailable"].split()[0]) * 1024]
    if (limit := group / "memory.max").is_file() and (text := limit.read_text().strip()) != "max":
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(counts["inactive_file"])  # of files that were read, such as the weights: it is given back
        left.append(int(text) - int((group / "memory.current").read_text()) + cached)
    return min(left)


def _bind_input(binding, name, array):
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _bind_output(binding, name, array):
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

"""The language model as an ONNX Runtime session: next pieces' probabilities, and the cache that they grow from.

Texts of different lengths share a run. Each row of the cache has its own length, so a text's answer does not depend on
its neighbours.
"""

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort


@dataclass
class Cache:
    """Keys and values of texts and of their continuations: `blocks[block][layer]` FP32 [rows, heads, size, width]. Rows
    are numbered through all blocks."""

    size: int
    blocks: list

    def rows(self, chosen):
        """These rows of every layer, in one array each."""
        starts = np.cumsum([0, *(len(block[0]) for block in self.blocks)])
        owners = np.searchsorted(starts, chosen, side="right") - 1
        parts = [
            (block, np.asarray(chosen)[owners == place] - starts[place])
            for place, block in enumerate(self.blocks)
            if (owners == place).any()
        ]
        return [np.concatenate([block[layer][rows] for block, rows in parts]) for layer in range(len(self.blocks[0]))]

    def add(self, block):
        """Number the rows of a block behind the others; returns their numbers."""
        first = sum(len(each[0]) for each in self.blocks)
        self.blocks.append(block)
        return range(first, first + len(block[0]))


class Decoder:
    """One session of the exported decoder; `threads` compute one operator."""

    def __init__(self, path, *, threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs = {each.name: each for each in self._session.get_inputs()}
        self._past = [name for name in inputs if name.startswith("past_key_values.")]
        self._present = [name.replace("past_key_values.", "present.") for name in self._past]
        self._heads, _, self._width = inputs[self._past[0]].shape[1:]

    def read(self, texts, positions, *, room):
        """Read whole texts (lists of token ids), keeping room for `room` more pieces.

        Returns their cache, whose row i is text i, and for each text the probabilities of the piece behind each of its
        `positions`: FP32 [positions, vocabulary].
        """
        longest = max(map(len, texts))
        ids = np.zeros((len(texts), longest), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
        size = longest + room
        empty = np.zeros((len(texts), self._heads, size, self._width), np.float32)
        at = sorted({position for each in positions for position in each})
        lengths = [len(text) for text in texts]
        logits, block = self._run(ids, lengths, longest, at, [empty] * len(self._past))
        found = [
            softmax(logits[row, np.searchsorted(at, wanted)]) for row, wanted in enumerate(map(np.asarray, positions))
        ]
        return Cache(size, [block]), found

    def extend(self, cache, rows, lengths, pieces):
        """Read one piece behind the first `lengths` of each of these rows, which must be in ascending order.

        Returns the numbers of the rows that now hold it, and the next pieces' probabilities FP32 [rows, vocabulary].
        """
        ids = np.array(pieces, np.int64)[:, None]
        after = [length + 1 for length in lengths]
        logits, block = self._run(ids, after, max(after), [0], cache.rows(rows))
        return cache.add(block), softmax(logits[:, 0])

    def _run(self, ids, lengths, longest, at, past):
        feeds = {
            "input_ids": ids,
            "seqlens_k": np.array(lengths, np.int32) - 1,
            "total_sequence_length": np.array([longest], np.int32),
            "logits_at": np.array(at, np.int64),
            **dict(zip(self._past, past, strict=True)),
        }
        logits, *block = self._session.run(["logits", *self._present], feeds)
        return logits, block


def softmax(logits):
    """Probabilities along the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)

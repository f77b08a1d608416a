"""What a caller may give for an input: nothing becomes another value in silence."""

import ml_dtypes
import numpy as np
import pytest

from clients import InvalidInputError, arrays


def masked(values, mask, dtype=np.float32):
    return np.ma.masked_array(np.array(values, dtype), mask=mask)


class Column:
    """A column of Arrow, polars or pandas as `clients.arrays` sees it: numpy reads NaN where a value is missing."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __array__(self, dtype=None, copy=None):
        return np.array([1, np.nan], np.float32)


class Extension:
    """A type of pandas' own."""


REFUSED = {
    "a masked array": (masked([[1, -9999]], [[0, 1]]), "FP32"),
    "a masked array in a list": ([masked([1, -9999], [0, 1])], "FP32"),
    "a masked array deep in lists and tuples": ([([0.0, 1.0], masked([1, -9999], [0, 1]))], "FP32"),
    "a masked number among numbers": ([1.0, np.ma.masked], "FP32"),
    "a masked whole number": ([1, np.ma.masked], "INT64"),
    "masked whole numbers": (masked([1, 2], [1, 0], np.int64), "INT64"),
    "masked texts": (masked(["a", "b"], [0, 1], object), "BYTES"),
    "masked texts of fixed width": (masked(["a", "b"], [0, 1], "U1"), "BYTES"),
    "masked texts in a list": ([masked(["a", "b"], [0, 1], object)], "BYTES"),
    "a masked text": (["a", np.ma.masked], "BYTES"),
    "masked BF16": (masked([1, 2], [1, 0], ml_dtypes.bfloat16), "BF16"),
    "a column of Arrow with a null": (Column(null_count=1), "FP32"),
    "a column of polars with a null": (Column(null_count=lambda: 1), "FP32"),
    "a table of Arrow with a null": (Column(itercolumns=lambda: [Column(null_count=0), Column(null_count=1)]), "FP32"),
    "a column of pandas with NA": (Column(dtype=Extension(), isna=lambda: np.array([False, True])), "FP32"),
    "a table of pandas with NA": (
        Column(columns=["a"], dtypes=[np.dtype("f4"), Extension()], isna=lambda: np.array([[False, True]])),
        "FP32",
    ),
    "a column with a null in a list": ([Column(null_count=1)], "FP32"),
    "an object array of numbers": (np.array([1.0, 2.0], object), "FP32"),
    "None among numbers": ([1.0, None], "FP32"),
    "None among texts": (["a", None], "BYTES"),
    "NaN among texts": (["a", float("nan")], "BYTES"),
    "times": (np.array(["2026-01-01"], "M8[s]"), "INT64"),
    "a time in a list": ([np.datetime64("2026-01-01")], "INT64"),
    "spans of time": (np.array([1], "m8[s]"), "INT64"),
    "complex numbers": (np.array([1 + 2j]), "FP64"),
    "a complex number in a list": ([1 + 2j], "FP64"),
    "FP64 for FP32": (np.array([0.1]), "FP32"),
    "FP32 for BF16": (np.array([0.1], np.float32), "BF16"),
    "a structured array": (np.zeros(2, [("a", "f4")]), "FP32"),
    "raw bytes for BF16": (np.zeros(2, "V2"), "BF16"),
    "a number beyond FP16": ([1e6], "FP16"),
    "a number beyond BF16": ([1e39], "BF16"),
    "an integer beyond INT64": ([2**63], "INT64"),
    "a time in seconds, which FP32 would round": ([1_700_000_001], "FP32"),
    "an integer that FP16 would round": ([2049], "FP16"),
    "an integer that BF16 would round": ([257], "BF16"),
    "an integer that FP64 would round": ([2**53 + 1], "FP64"),
    "the largest INT64, which FP64 would round": ([2**63 - 1], "FP64"),
    "a set": ({1.0}, "FP32"),
    "digits for numbers": (["1"], "INT64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    with pytest.raises(InvalidInputError):
        arrays.as_array(*REFUSED[case])


TAKEN = {
    "a masked array whose values are all there": (masked([1, 2], [0, 0]), "FP32", [1, 2]),
    "a column without gaps": (Column(null_count=0), "FP32", [1, np.nan]),
    "NaN of numpy's own type in pandas": (
        Column(dtype=np.dtype("f4"), isna=lambda: np.array([False, True])),
        "FP32",
        [1, np.nan],
    ),
    "NaN": ([1.0, float("nan")], "FP32", [1, np.nan]),
    "infinity": ([float("inf")], "FP16", [np.inf]),
    "big-endian numbers": (np.array([1.5], ">f4"), "FP32", [1.5]),
    "big-endian numbers in a list": ([np.array([1, 2], ">i8")], "INT64", [[1, 2]]),
    "whole numbers for BF16": ([1, 2], "BF16", [1, 2]),
    "whole numbers that FP32 can hold": ([2**24, -(2**60)], "FP32", [2**24, -(2**60)]),
    "a large number written as a float": ([1_700_000_001.0], "FP32", [1_700_000_000]),
    "ml_dtypes for BF16": (np.array([1.5], ml_dtypes.bfloat16), "BF16", [1.5]),
    "texts with NUL": (["a\0", b"\0"], "BYTES", ["a\0", b"\0"]),
    "bytearrays": ([[bytearray(b"ab")], [bytearray(b"cd")]], "BYTES", [[b"ab"], [b"cd"]]),
    "empty bytearrays": ([[bytearray()], [bytearray()]], "BYTES", [[b""], [b""]]),
    "an empty bytearray alone": (bytearray(), "BYTES", [b""]),
    "no texts of a shape": ([np.empty((0, 2), object)], "BYTES", [[]]),
    "a number that FP32 rounds to its smallest": ([1e-45], "FP32", [float(np.float32(1e-45))]),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(case):
    value, datatype, expected = TAKEN[case]
    array = arrays.as_array(value, datatype)
    assert array.dtype == arrays.NUMPY_TYPE.get(datatype, object)
    assert array.dtype.isnative
    if datatype == "BYTES":
        assert array.tolist() == expected
    else:
        np.testing.assert_array_equal(array.astype(np.float64), expected)


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    bf16 = torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)
    for given, expected in ((bf16, [[1.5, -2.0]]), ([bf16[0], bf16[0]], [[1.5, -2.0]] * 2), (bf16.T, [[1.5], [-2.0]])):
        array = arrays.as_array(given, "BF16")
        assert (array.dtype, array.tolist()) == (ml_dtypes.bfloat16, expected)
    assert arrays.as_array(torch.tensor([1.5]), "FP32").tolist() == [1.5]
    with pytest.raises(InvalidInputError):
        arrays.as_array(bf16, "FP32")
    for unreadable, remedy in (
        (torch.ones(1, requires_grad=True), "detach"),
        ([torch.ones(1, requires_grad=True)], "detach"),
        (torch.ones(1, device="meta"), "cpu"),
        (torch.ones(1, device="meta", dtype=torch.bfloat16), "cpu"),
        (torch.ones(1, 1).to_sparse(), "to_dense"),
    ):
        with pytest.raises((TypeError, RuntimeError), match=remedy):  # torch's own words, which the codec passes on
            arrays.as_array(unreadable, "FP32")


def test_a_sparse_matrix_is_named():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(InvalidInputError, match="csr_matrix"):
        arrays.as_array(sparse.csr_matrix(np.eye(2, dtype=np.float32)), "FP32")

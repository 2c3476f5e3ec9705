"""Exceptions: their built-in parents, their words, and what a panic becomes."""

import pickle

import pytest

import framecache
from support import run


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("FrameError", ValueError),
        ("DecodeError", ValueError),
        ("CopyRequired", ValueError),
        ("InvalidArgument", ValueError),
        ("ValueTooLarge", ValueError),
        ("Unsupported", NotImplementedError),
        ("EncodeError", TypeError),
        ("ViewExported", BufferError),
        ("OutOfMemory", MemoryError),
        ("StoreError", OSError),
        ("InternalError", Exception),
    ],
)
def test_an_error_is_caught_as_framecaches_and_as_the_built_in_one(name, parent):
    kind = getattr(framecache, name)
    for caught in (framecache.FramecacheError, parent):
        with pytest.raises(caught, match="words"):
            raise kind("words")
    assert kind.__module__ == "framecache"
    assert pickle.loads(pickle.dumps(kind("words"))).args == ("words",)


def test_a_panic_is_an_internal_error_and_the_interpreter_goes_on():
    code = """
    import framecache, framecache.arrow, pyarrow as pa
    class Lying:
        "Its array has fewer columns than its schema, on which arrow-rs panics."
        def __arrow_c_array__(self, requested_schema=None):
            schema = pa.schema([("a", pa.int64()), ("b", pa.int64())]).__arrow_c_schema__()
            return schema, pa.record_batch({"a": [1]}).__arrow_c_array__()[1]
    for _ in range(3):
        try:
            framecache.arrow.encode(Lying())
        except Exception as error:
            print(type(error).__name__, str(error).startswith("defect in framecache"))
    print(framecache.arrow.decode(framecache.arrow.encode(pa.table({"x": [1]}))).num_rows)
    """
    assert run(code) == "InternalError True\n" * 3 + "1\n"

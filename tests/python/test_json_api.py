"""The interface of framecache.json is orjson's: names, values, signatures, messages."""

import inspect
import json
import pickle

import orjson
import pytest

import framecache.json as framecache_json
from support import frame_in, put_frame

#: What orjson's module has besides its interface.
OF_THE_PACKAGE = {"orjson"}


def public(module):
    return {name for name in dir(module) if not name.startswith("_")} - OF_THE_PACKAGE


def test_every_public_name_of_orjson_is_there():
    assert public(orjson) <= public(framecache_json)
    assert set(orjson.__all__) <= set(framecache_json.__all__)


@pytest.mark.parametrize("name", sorted(name for name in public(orjson) if name.startswith("OPT_")))
def test_options_have_the_same_bits(name):
    assert getattr(framecache_json, name) == getattr(orjson, name)
    assert type(getattr(framecache_json, name)) is int


@pytest.mark.parametrize("name", ["dumps", "loads"])
def test_functions_have_the_same_signature(name):
    ours, theirs = getattr(framecache_json, name), getattr(orjson, name)
    assert ours.__text_signature__ == theirs.__text_signature__
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert type(ours) is type(theirs)
    assert (ours.__name__, ours.__qualname__) == (theirs.__name__, theirs.__qualname__)
    assert ours.__doc__.startswith(theirs.__doc__)


def test_errors_have_the_same_parents():
    assert framecache_json.JSONEncodeError is orjson.JSONEncodeError is TypeError
    assert framecache_json.JSONDecodeError.__bases__ == orjson.JSONDecodeError.__bases__ == (json.JSONDecodeError,)
    assert framecache_json.JSONDecodeError.__name__ == "JSONDecodeError"


def test_a_decode_error_can_be_pickled():
    with pytest.raises(framecache_json.JSONDecodeError) as caught:
        framecache_json.loads('{\n"a": 1,}')
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is framecache_json.JSONDecodeError
    assert (copy.msg, copy.doc, copy.pos, copy.lineno, copy.colno) == (
        "trailing comma is not allowed",
        '{\n"a": 1,}',
        8,
        2,
        7,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ((1,), {}),
        ((1, None), {}),
        ((1, None, None), {}),
        ((1, None, 1024), {}),
        ((1,), {"default": None}),
        ((1,), {"option": None}),
        ((1,), {"option": 1024, "default": str}),
        ((1,), {"option": 0}),
    ],
)
def test_dumps_takes_the_same_arguments(arguments):
    positional, named = arguments
    assert framecache_json.dumps(*positional, **named) == orjson.dumps(*positional, **named)


@pytest.mark.parametrize(
    "call",
    [
        lambda module: module.dumps(),
        lambda module: module.dumps(obj=1),
        lambda module: module.dumps(1, other=2),
        lambda module: module.dumps(1, None, default=None),
        lambda module: module.dumps(1, None, None, option=None),
        lambda module: module.loads(),
        lambda module: module.loads("1", "2"),
        lambda module: module.loads(obj="1"),
        lambda module: module.Fragment(),
        lambda module: module.Fragment("1", "2"),
        lambda module: module.Fragment(contents="1"),
    ],
)
def test_wrong_calls_are_type_errors(call):
    for module in (framecache_json, orjson):
        with pytest.raises(TypeError):
            call(module)


@pytest.mark.parametrize("option", ["1", 1.0, True, -1, 4096, 8192, [1], object()])
def test_wrong_options_are_refused(option):
    for module in (framecache_json, orjson):
        with pytest.raises(module.JSONEncodeError, match=r"^Invalid opts$"):
            module.dumps(1, option=option)


@pytest.mark.parametrize("option", [1 << 32, 1 << 40, 1 << 70, (1 << 32) | 1, -(2**70)])
def test_bits_beyond_all_options_are_refused(option):
    with pytest.raises(framecache_json.JSONEncodeError, match=r"^Invalid opts$"):
        framecache_json.dumps(1, option=option)


def test_a_fragment_keeps_what_it_was_given_to_itself():
    fragment = framecache_json.Fragment(b"1")
    assert not hasattr(fragment, "contents")
    with pytest.raises(AttributeError):
        fragment.contents = b"2"
    assert type(fragment).__module__ == "framecache.json"
    assert framecache_json.dumps([fragment, framecache_json.Fragment("é")]) == "[1,é]".encode()


def test_the_note_of_an_encode_error_says_where():
    value = {"users": [{"name": "a"}, {"name": "b", "joined at": {1, 2}}]}
    with pytest.raises(framecache_json.JSONEncodeError) as caught:
        framecache_json.dumps(value)
    assert str(caught.value) == "Type is not JSON serializable: set"
    assert caught.value.__notes__ == ['at $.users[1]["joined at"]']


@pytest.mark.parametrize(
    ("value", "option", "place"),
    [
        ({"a": [1, {"b": 2**64}]}, 0, "$.a[1].b"),
        ({"a": [1, {"b": 2**64}]}, framecache_json.OPT_SORT_KEYS, "$.a[1].b"),
        ({1: (0, "\ud800")}, framecache_json.OPT_NON_STR_KEYS, "$[1][1]"),
        (object(), 0, "$"),
        ([[[object()]]], framecache_json.OPT_INDENT_2, "$[0][0][0]"),
    ],
)
def test_places(value, option, place):
    with pytest.raises(framecache_json.JSONEncodeError) as caught:
        framecache_json.dumps(value, option=option)
    assert caught.value.__notes__ == [f"at {place}"]


def test_a_value_is_a_frame_and_back():
    value = {"id": 1, "text": "Größe", "list": [1.5, None, True]}
    frame = framecache_json.encode(value)
    assert framecache_json.decode(frame) == value
    assert framecache_json.decode(bytes(frame)) == value
    assert bytes(frame).endswith(framecache_json.dumps(value))


def test_a_frame_of_another_codec_is_refused():
    from framecache import DecodeError, msgpack

    with pytest.raises(DecodeError, match="expected codec 'json', found 'msgpack'"):
        framecache_json.decode(msgpack.encode(1))


class TestInTheCache:
    def test_an_entry_is_json_for_others_to_read(self, cache, directory):
        value = {"id": 1, "tags": ("a", "ü"), "nested": {"list": [1.5, None]}}
        cache.set("key", value, codec="json")
        assert cache.get("key") == {"id": 1, "tags": ["a", "ü"], "nested": {"list": [1.5, None]}}
        assert frame_in(directory, "key").endswith(framecache_json.dumps(value))

    def test_what_json_does_not_keep_is_an_error(self, cache):
        with pytest.raises(framecache_json.JSONEncodeError, match="Type is not JSON serializable: set"):
            cache.set("key", {1}, codec="json")
        assert "key" not in cache

    @pytest.mark.parametrize("codec", ["raw", "", "JSON", 1])
    def test_other_codecs_cannot_be_chosen(self, cache, codec):
        from framecache import InvalidArgument

        with pytest.raises(InvalidArgument, match="codec: expected 'auto', 'msgpack' or 'json'"):
            cache.set("key", 1, codec=codec)

    def test_json_has_no_views(self, cache):
        from framecache import CopyRequired

        cache.set("key", [1], codec="json")
        with pytest.raises(CopyRequired, match="JSON has no views"):
            cache.get("key", require_zero_copy=True)

    def test_a_damaged_entry_is_a_miss(self, cache, directory):
        cache.set("key", ["x" * 100], codec="json")
        put_frame(directory, "key", frame_in(directory, "key").replace(b'["x', b"[[x"))
        assert cache.get("key", "missing") == "missing"
        assert cache.stats() == {"undecodable": 1}

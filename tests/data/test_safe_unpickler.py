from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from ripieno.data.safe_unpickler import read_program


def test_dicts_lists_integers_and_strings_are_read(make):
    value = {b"a": [1, 300, 70000, -5], b"b": b"text", b"c": [], b"long": b"x" * 300}
    assert read_program(make.program(value)) == {k.decode(): v for k, v in value.items()}


def test_lists_longer_than_a_thousand_are_read(make):
    assert read_program(make.program({b"a": list(range(2500))}))["a"] == list(range(2500))


def test_an_array_of_bytes_is_read(make):
    array = np.arange(2000, dtype=np.uint8).reshape(40, 50)
    assert np.array_equal(read_program(make.program({b"a": array}))["a"], array)


def test_an_array_in_fortran_order_is_read(make):
    data = make.program({b"a": np.arange(6, dtype=np.uint8).reshape(2, 3)}).replace(b"\x89U", b"\x88U")
    assert read_program(data)["a"].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_what_was_put_into_the_memo_is_found_again():
    assert read_program(b"\x80\x02}q\x00(U\x01aq\x01h\x01U\x01bh\x01u.") == {"a": b"a", "b": b"a"}


def test_unicode_keys_as_python_3_writes_them_are_read():
    assert read_program(b"\x80\x02}q\x00X\x04\x00\x00\x00dataq\x01K\x05s.") == {"data": 5}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02cbuiltins\neval\nU\x01x\x85R.", "refers to builtins.eval"),
        (b"\x80\x02cnumpy\nload\nU\x01x\x85R.", "refers to numpy.load"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "holds the instruction STACK_GLOBAL"),
        (b"(S'x'\nios\nsystem\n.", "holds the instruction STRING"),
        (b"\x80\x02(ios\nsystem\n.", "holds the instruction INST"),
        (b"\x80\x02(cnumpy\nndarray\no.", "holds the instruction OBJ"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "holds the instruction NEWOBJ"),
        (b"\x80\x02Pid\n.", "holds the instruction PERSID"),
        (b"\x80\x02cnumpy\nndarray\nK\x05\x85R.", "an object other than an array"),
        (b"\x80\x02cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.", "an object other than an array"),
        (b"\x80\x02K\x05K\x05\x85R.", "an object other than an array"),
        (b"\x80\x02K\x05}b.", "sets the state of an object other"),
        (b"\x80\x02K\x05.", "holds no dict"),
        (b"\x80\x02]K\x05K\x06s.", "malformed"),
        (b"\x80\x02}K\x05a.", "malformed"),
        (b"\x80\x02}h\x07.", "malformed"),
        (b"\x80\x02}u.", "malformed"),
        (b"\x80\x02}}.", "unpack"),
        (b"\x80\x02}", "exhausted"),
        (b"", "exhausted"),
        (b"hello", "malformed"),
        (b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s.", "malformed"),
        (b"\xff", "opcode"),
    ],
)
def test_anything_else_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read_program(data)


def test_an_array_with_fewer_bytes_than_its_shape_is_refused(make):
    data = make.program({b"a": np.zeros((40, 50), np.uint8)}).replace(b"K\x28K\x32", b"K\x29K\x32")
    with pytest.raises(ValueError, match="reshape"):
        read_program(data)


@over(st.data())
def test_damaged_files_are_a_value_error_or_a_dict_never_anything_else(make, data):
    valid = make.program({b"a": np.zeros((4, 5), np.uint8), b"b": [1, 2], b"c": b"text"})
    at = data.draw(st.integers(2, len(valid) - 2))
    damaged = valid[:at] + data.draw(st.binary(max_size=4)) + valid[at + data.draw(st.integers(0, 4)) :]
    with contextlib.suppress(ValueError):
        assert isinstance(read_program(damaged), dict)

"""Durations: three digits, and the unit that suits."""

import pytest

from keras_diagwise.durations import duration, milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 µs"),
        (4.5678e-6, "4.57 µs"),
        (999.4e-6, "999 µs"),
        (999.6e-6, "1 ms"),
        (0.0123, "12.3 ms"),
        (0.1234, "123 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (1.6, "1.6 s"),
        (1234.5, "1,234 s"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (4.5678e-6, "0.00457"), (1.2345, "1,234")]
)
def test_milliseconds(seconds, text):
    assert milliseconds(seconds) == text

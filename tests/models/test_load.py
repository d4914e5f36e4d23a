"""Models by a file or a name."""

import zipfile

import keras
import numpy as np
import pytest

from keras_diagwise.models.load import application_names, load


@pytest.fixture
def saved(tmp_path):
    """A model that is compiled, in a file."""
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.DepthwiseConv2D(3)])
    model.compile("sgd", "mse", jit_compile=False)
    model.save(tmp_path / "model.keras")
    return model, tmp_path / "model.keras"


def refused(*arguments):
    with pytest.raises(ValueError) as error:
        load(*arguments)
    assert len(str(error.value)) < 900
    return str(error.value)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_files_model_is_loaded_as_compiled(saved, kind):
    model, path = saved
    loaded = load(kind(path))
    assert loaded.jit_compile is False
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_application_has_the_size_asked_for():
    assert load("MobileNet", 32).input_shape == (None, 32, 32, 3)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "nothing.keras" in refused(tmp_path / "nothing.keras")
    assert "`model` must name a file that exists" in refused(f"{tmp_path}.keras")


@pytest.mark.parametrize("length", [0, 10, 2000])
def test_a_damaged_file_is_named(saved, tmp_path, length):
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(saved[1].read_bytes()[:length])
    text = refused(damaged)
    assert "damaged.keras" in text
    assert "load_model" in text


def test_an_unregistered_class_has_a_remedy(tmp_path):
    """A class that is not registered is refused with a remedy."""

    class OfMyOwn(keras.layers.Layer):
        def call(self, x):
            return x

    model = keras.Sequential([keras.Input((4,)), OfMyOwn()])
    model.save(tmp_path / "own.keras")
    text = refused(tmp_path / "own.keras")
    assert "must be registered" in text
    assert "--import" in text
    assert "Could not locate class 'OfMyOwn'" in text


def test_a_file_of_something_else_is_refused(tmp_path):
    """A file that holds no model is refused, by what it holds."""
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    keras.saving.save_model(layer, tmp_path / "layer.keras")
    with pytest.raises(ValueError, match=r"layer\.keras'?, which holds a Dense"):
        load(str(tmp_path / "layer.keras"))


def test_a_size_for_a_file_is_refused(saved):
    assert "image_size=32" in refused(saved[1], 32)


@pytest.mark.parametrize("name", ["MobileNetV9", "mobilenet_v2", "np", "__name__"])
def test_unknown_name_suggests_similar_ones(name):
    text = refused(name)
    assert f"model={name!r}" in text
    assert any(known in text for known in application_names())


def test_the_names_most_like_it_come_alone():
    text = refused("MobileNetV9")
    assert "MobileNetV2" in text
    assert "ResNet50" not in text


def test_an_impossible_size_is_named():
    assert "image_size=8" in refused("MobileNetV2", 8)


def test_the_names_are_the_applications():
    assert "MobileNetV2" in application_names()
    assert all(callable(getattr(keras.applications, n)) for n in application_names())


def test_no_archive_is_damaged_not_missing(tmp_path):
    """A file that is no archive is called damaged, not missing.

    Keras's own message is that the file was not found.
    """
    (tmp_path / "text.keras").write_text("no archive")
    text = refused(tmp_path / "text.keras")
    assert "damaged" in text
    assert "not found" not in text


def test_a_later_keras_version_is_named(saved, tmp_path):
    """A file of a later Keras is refused with its version."""
    later = tmp_path / "later.keras"
    with zipfile.ZipFile(saved[1]) as before, zipfile.ZipFile(later, "w") as after:
        for name in set(before.namelist()) - {"metadata.json", "config.json"}:
            after.writestr(name, before.read(name))
        after.writestr("metadata.json", '{"keras_version": "99.10.0"}')
        after.writestr("config.json", "{}")
    assert "saved by Keras 99.10.0" in refused(later)


def test_a_name_like_none_suggests_a_few():
    """A name that is like none is refused with a few names only."""
    assert len(refused("model.h5")) < 300

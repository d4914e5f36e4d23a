"""Settings: values that are chosen, from a variable, for a while, and told of."""

import pytest

from keras_diagwise.settings import Settings


def test_a_setting_holds_for_a_while():
    told = []
    settings = Settings(changed=lambda: told.append(settings.on_miss))
    with settings.temporarily(on_miss="native", precision="strict"):
        assert (settings.on_miss, settings.precision) == ("native", "strict")
    assert (settings.on_miss, settings.precision) == ("nearest", "standard")
    assert told == ["native", "native", "nearest", "nearest"]


def test_an_error_restores_the_setting():
    settings = Settings()
    settings.on_miss = "error"
    with pytest.raises(KeyError), settings.temporarily(on_miss="tune"):
        raise KeyError
    assert settings.on_miss == "error"


@pytest.mark.parametrize("name", ["on_miss", "precision"])
def test_what_is_no_choice_is_named(name):
    settings = Settings()
    before = getattr(settings, name)
    with pytest.raises(ValueError, match=f"{name}='never'"):
        setattr(settings, name, "never")
    with (
        pytest.raises(ValueError, match="'never'"),
        settings.temporarily(**{name: "never"}),
    ):
        pass
    assert getattr(settings, name) == before


def test_the_variable_counts_until_it_is_set(monkeypatch):
    monkeypatch.setenv("KERAS_DIAGWISE_ON_MISS", "error")
    assert Settings().on_miss == "error"
    settings = Settings()
    settings.on_miss = "native"
    assert settings.on_miss == "native"

import pytest

from pie_engine import errors
from pie_engine.errors import ErrorInfo, Internal, InvalidProgram, LimitExceeded, Lost, PieError, info_of


def test_an_error_survives_the_wire_as_the_same_class():
    error = InvalidProgram("no main", hint="write one")
    again = error.info.raised()
    assert type(again) is InvalidProgram
    assert (again.code, again.message, again.hint) == ("invalid_program", "no main", "write one")


@pytest.mark.parametrize("code", LimitExceeded.LIMITS)
def test_a_limit_keeps_its_own_name(code):
    again = LimitExceeded.of(code, "x").info.raised()
    assert isinstance(again, LimitExceeded)
    assert again.code == code


@pytest.mark.parametrize("code", Lost.CODES)
def test_a_loss_says_what_was_lost_and_that_a_retry_helps(code):
    again = Lost.of(code, "x").info.raised()
    assert isinstance(again, Lost)
    assert again.code == code
    assert again.retry


def test_an_unknown_code_of_a_newer_peer_is_still_an_error():
    again = ErrorInfo("from_the_future", "m").raised()
    assert type(again) is PieError
    assert again.code == "from_the_future"


def test_a_foreign_exception_becomes_internal_and_keeps_its_name():
    info = info_of(KeyError("k"))
    assert info.code == Internal.code
    assert "KeyError" in info.message


def test_codes_are_unique():
    classes = [cls for cls in errors._classes(PieError) if cls.__module__ == errors.__name__]
    assert len({cls.code for cls in classes}) == len(classes)

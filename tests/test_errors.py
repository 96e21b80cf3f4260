from sr_utils.errors import UserError


def test_is_a_value_error_with_its_sentence():
    error = UserError("data_root is missing: give one.")
    assert isinstance(error, ValueError)
    assert str(error) == "data_root is missing: give one."

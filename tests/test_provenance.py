"""What weights say that they are of, held against what they have to be of."""

import pytest

from sr_utils.errors import UserError
from sr_utils.files import write_json
from sr_utils.provenance import check_about, known_weights, provenance_beside

ABOUT = {"pairs": "ab12", "steps": 100, "learning_rate": 5e-4}


def test_a_provenance_may_say_more_and_not_less(tmp_path):
    path = tmp_path / "network.safetensors"
    check_about(path, ABOUT | {"commit": "0123456"}, ABOUT)
    with pytest.raises(UserError, match="is of other data or another budget .not the same: steps.: remove it"):
        check_about(path, {"pairs": "ab12", "learning_rate": 5e-4}, ABOUT)
    with pytest.raises(UserError, match="not the same: pairs and steps"):
        check_about(path, ABOUT | {"pairs": "cd34", "steps": 1}, ABOUT)


def test_tuples_are_the_lists_of_a_file(tmp_path):
    check_about(tmp_path / "network.safetensors", {"grain": [0.0, 1.0]}, {"grain": (0.0, 1.0)})


def test_what_lies_beside_weights_is_read_and_what_is_not_there_is_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    assert provenance_beside(path) is None
    with pytest.raises(UserError, match="does not say which data and budget it is of"):
        check_about(path, provenance_beside(path), ABOUT)
    write_json(path.with_suffix(".json"), ABOUT)
    check_about(path, provenance_beside(path), ABOUT)


def test_weights_are_known_only_where_they_are_and_of_what_is_asked(tmp_path):
    path = tmp_path / "network.safetensors"
    write_json(path.with_suffix(".json"), ABOUT)
    assert not known_weights(path, ABOUT)
    path.touch()
    assert known_weights(path, ABOUT)
    with pytest.raises(UserError, match="not the same: steps"):
        known_weights(path, ABOUT | {"steps": 1})

import pytest

from sr_utils.errors import UserError
from sr_utils.parameters import check_types, parse_values, read_parameters, refuse_unknown

CELL = """
profile: str = "quick"  # smoke, quick, full or gpu
seed: int = 0
rate: "float | None" = None
steps = 3
names: list[str] = ["a"]
flag = False
where = compute()
"""


def test_reads_annotations_and_literal_defaults():
    declared = read_parameters(CELL)
    assert list(declared) == ["profile", "seed", "rate", "steps", "names", "flag", "where"]
    assert declared["rate"].kinds == ("float", "None")
    assert declared["steps"].kinds == ("int",) and declared["steps"].default == 3
    assert declared["where"].kinds == ()
    assert read_parameters("%matplotlib inline") == {}
    assert read_parameters("seed: int = 1\nseed = 'x'")["seed"].default == 1


def test_parses_text_as_the_declared_type():
    declared = read_parameters(CELL)
    settings = ["rate=1e-3", "seed=7", "profile=full", "flag=true", "names=['x', 'y']"]
    values = parse_values(settings, declared, where="n")
    assert values == {"rate": 1e-3, "seed": 7, "profile": "full", "flag": True, "names": ["x", "y"]}
    assert parse_values(["rate=none", "profile=12"], declared, where="n") == {"rate": None, "profile": "12"}
    assert parse_values(["profile=a=b"], declared, where="n") == {"profile": "a=b"}


@pytest.mark.parametrize("setting", ["seed=1.5", "seed=x", "seed=", "rate=fast", "flag=1", "names=3", "steps=True"])
def test_refuses_text_of_another_type(setting):
    with pytest.raises(UserError, match=setting.partition("=")[0]):
        parse_values([setting], read_parameters(CELL), where="n")


def test_refuses_unknown_names_and_suggests_the_nearest():
    with pytest.raises(UserError, match="'sede' is not a parameter of n: did you mean 'seed'"):
        parse_values(["sede=1"], read_parameters(CELL), where="n")
    with pytest.raises(UserError, match="choose one of a, b"):
        refuse_unknown("zzz", ["a", "b"], what="profile")
    with pytest.raises(UserError, match="name=value"):
        parse_values(["seed"], read_parameters(CELL), where="n")


def test_checks_values_as_papermill_passes_them():
    declared = read_parameters(CELL)
    check_types({"seed": 1, "rate": 2, "profile": "x", "unheard": object()}, declared, where="n")
    for name, value in [("rate", "1e-3"), ("seed", True), ("seed", 1.0), ("profile", 3), ("flag", 1)]:
        with pytest.raises(UserError, match=f"The parameter {name} of n must be"):
            check_types({name: value}, declared, where="n")

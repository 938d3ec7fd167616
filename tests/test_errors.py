"""The error classes: each is also the builtin that a user would catch."""

import inspect
import re
from pathlib import Path

import pytest

from gpujac import errors

ALSO = {
    "StructureError": (ValueError,),
    "ArgumentError": (ValueError,),
    "ArgumentTypeError": (TypeError,),
    "ArgnumsRangeError": (ValueError, IndexError),
    "AxisError": (ValueError, IndexError),
    "ShapeError": (ValueError,),
    "DTypeError": (TypeError,),
    "ConcretizationError": (TypeError,),
    "MissingRuleError": (NotImplementedError,),
    "DispatchError": (TypeError,),
    "MutationError": (TypeError,),
    "NonFiniteError": (FloatingPointError,),
    "LeakedTracerError": (RuntimeError,),
    "RegistrationError": (ValueError,),
    "BackendError": (RuntimeError,),
    "KernelError": (RuntimeError,),
}


@pytest.mark.parametrize(("name", "builtins"), ALSO.items())
def test_error_is_caught_as_its_builtin_and_as_gpujac_error(name, builtins):
    error = getattr(errors, name)
    assert issubclass(error, (errors.GpujacError, *builtins))
    for builtin in builtins:
        with pytest.raises(builtin, match="what was asked"):
            raise error("what was asked")


def test_the_module_holds_exactly_the_documented_classes():
    classes = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
    assert classes == {"GpujacError", "DerivativeWarning", *ALSO} == set(errors.__all__)
    assert issubclass(errors.DerivativeWarning, UserWarning)


def test_a_users_own_error_is_no_gpujac_error():
    assert not issubclass(ValueError, errors.GpujacError)
    assert errors.GpujacError.__bases__ == (Exception,)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_class_says_when_it_is_raised(name):
    text = inspect.getdoc(getattr(errors, name))
    assert len(text.splitlines()) > 2
    assert text.splitlines()[0].endswith(".")


PAGE = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
SECTIONS = dict(zip(*[iter(re.split(r"^## `(\w+)`$", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))


def test_the_page_has_a_section_for_each_class():
    assert set(SECTIONS) == set(errors.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_a_section_has_a_wrong_program_its_message_and_the_program_repaired(name):
    """All of it is run as a doctest (tests/test_docs.py), so messages are those that programs give."""
    wrong, repaired = re.split(r"^(?:Repaired|Without).*:$", SECTIONS[name], flags=re.MULTILINE)
    raised = {"GpujacError": "gpujac.errors.ShapeError: ", "DerivativeWarning": "DerivativeWarning x.item()"}
    assert raised.get(name, f"gpujac.errors.{name}: ") in wrong
    assert ">>> " in repaired
    assert "Traceback" not in repaired


@pytest.mark.parametrize(("name", "builtins"), ALSO.items())
def test_a_section_names_the_builtins_of_its_class(name, builtins):
    assert all(f"`{builtin.__name__}`" in SECTIONS[name].partition("Wrong:")[0] for builtin in builtins)

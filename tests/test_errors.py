"""The error classes: each is also the builtin that a user would catch."""

import inspect

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

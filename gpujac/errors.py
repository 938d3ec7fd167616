"""The error classes: one base, and one class per thing that can go wrong.

Each class also inherits the builtin that a user would catch for the same mistake in NumPy code,
so `except ValueError` keeps working. A message says what was asked, what was found, what to do.
Running out of memory stays `MemoryError`, as NumPy and CuPy raise it.
"""

__all__ = [
    "ArgnumsRangeError",
    "ArgumentError",
    "ArgumentTypeError",
    "AxisError",
    "BackendError",
    "ConcretizationError",
    "DTypeError",
    "DerivativeWarning",
    "DispatchError",
    "GpujacError",
    "KernelError",
    "LeakedTracerError",
    "MissingRuleError",
    "MutationError",
    "NonFiniteError",
    "RegistrationError",
    "ShapeError",
    "StructureError",
]


class GpujacError(Exception):
    """The base of all errors that gpujac raises.

    Catch it to catch everything that the library itself refuses, and nothing that the user's own
    function raises: an exception that leaves the user's function passes through unchanged.
    """


class StructureError(GpujacError, ValueError):
    """Two nested containers (pytrees) that must have the same structure differ.

    Raised when tangents, cotangents, `in_dims` or `out_dims` do not have the structure of what
    they belong to, when the number of arguments is wrong, and when `has_aux=True` but the
    function does not return a pair. The message prints both structures and the path of the first
    place where they differ.
    """


class ArgumentError(GpujacError, ValueError):
    """An option has a value outside its set.

    Raised for `chunk_size`, `assembly`, `randomness`, `memory`, empty or duplicate `argnums`, and
    for settings. Checked when a transform is built; only what depends on the arguments (an argument
    named twice as 0 and -2, nothing to map over) is found when the function is called.
    """


class ArgumentTypeError(GpujacError, TypeError):
    """An option or a leaf has the wrong type.

    Raised for `argnums`, `in_dims` or `chunk_size` that are no integers, for an argument that is
    not callable where a function is needed, and for a leaf that is not an array.
    """


class ArgnumsRangeError(GpujacError, ValueError, IndexError):
    """`argnums` names a positional argument that the call does not have.

    Only positional arguments can be selected; keyword arguments pass through untouched.
    """


class AxisError(GpujacError, ValueError, IndexError):
    """An axis is out of range for the array that it is applied to.

    Raised for `axis` of an operation, and for `in_dims` and `out_dims`. Like NumPy's own
    `AxisError` it is both a `ValueError` and an `IndexError`.
    """


class ShapeError(GpujacError, ValueError):
    """Shapes do not fit together.

    Raised when a tangent or cotangent does not have the shape of its value, when mapped axes have
    different sizes, when an operation such as `reshape`, `concatenate` or `matmul` cannot use the
    shapes it is given, and when `grad` meets an output that is not a scalar. Operands that cannot
    be broadcast raise the ValueError of their own library.
    """


class DTypeError(GpujacError, TypeError):
    """A dtype that the request cannot work with.

    Raised when an integer or boolean leaf is to be differentiated, when a complex value meets a
    transform that is only defined for real ones, and when a cast would lose the imaginary part.
    """


class ConcretizationError(GpujacError, TypeError):
    """A plain value was asked of a traced array where that would lose the derivative.

    Raised by `float(x)`, `complex(x)`, `math.*` and `np.asarray(x)` of a traced floating array,
    and under `vmap` by everything that needs one value (`if`, `bool(x)`, `int(x)`). The message
    names the cure: `np.*` functions, `where`, `cond`, or `gpujac.value(x)` to drop the derivative
    on purpose.
    """


class MissingRuleError(GpujacError, NotImplementedError):
    """An operation has no rule for the transform that asks for one.

    The message names the operation, the rule and the reason. A missing rule is never a silent
    zero and never a silent slow path.
    """


class DispatchError(GpujacError, TypeError):
    """A function was called on a traced array that cannot be traced through.

    The same text is added as a note to the error that CuPy raises by itself when one of its
    compiled functions meets a traced array. The message names the function and the cure.
    """


class MutationError(GpujacError, TypeError):
    """An in-place write that cannot be recorded.

    Raised when another live view would have to see the write, when a value captured from outside
    the traced function is written to, and when a traced value is written into a plain array (make
    the array with `zeros_like(x)` of a traced `x` instead).
    """


class LeakedTracerError(GpujacError, RuntimeError):
    """A traced array was used after the transform that made it had ended.

    It was stored somewhere outside the function (a global, a list, an attribute). Return it from
    the function instead, through `has_aux=True` where it is not part of the result.
    """


class NonFiniteError(GpujacError, FloatingPointError):
    """With `settings.debug_nans`, an operation made a NaN or an infinity of finite numbers.

    Raised at the first such operation, in the function as well as in the sweep of its derivative. The
    message has the operation, the statistics of its operands, and the user's line.
    """


class RegistrationError(GpujacError, ValueError):
    """A custom operation, decomposition or container cannot be registered as asked.

    Raised for a name that is taken or malformed, an unknown device type, or a rule that is
    registered twice.
    """


class BackendError(GpujacError, RuntimeError):
    """A backend is not there, or arrays of two backends or devices were mixed in one operation.

    The message names both and the cure.
    """


class KernelError(GpujacError, RuntimeError):
    """A GPU kernel did not compile or could not be launched.

    The message holds the kernel's name, the compiler's log and the arguments' shapes and dtypes.
    """


class DerivativeWarning(UserWarning):
    """A derivative is dropped where the code may not mean it, as by `x.item()`.

    A warning, no error: it is shown once per source line, and silenced as any other warning.
    """

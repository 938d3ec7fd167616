"""What torch.func refuses (the E rows), as calls: what is raised here, in which words, and by torch."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import gpujac as gj

X = np.array([1.0, 2.0, 3.0])
B = np.stack([X, -X])
Z = X + 1j


class Refusal(NamedTuple):
    """One refused call: its code, what is wrong, our class and words, torch's class, and the call."""

    code: str
    says: str
    ours: type[Exception]
    words: str
    torch: str
    call: Callable


def f(x: object, y: object) -> object:
    return (x * y).sum()


def cotangent(ct: object) -> Callable:
    return lambda: gj.vjp(lambda x: {"y": x, "s": x.sum()}, X)[1](ct)


def leak(x: object) -> object:
    LEAKED.append(x)
    return (x * x).sum()


LEAKED: list = []
PLAIN = np.zeros(3)


def escaped() -> object:
    gj.vmap(leak)(B)
    return LEAKED.pop() + 1


def written(x: object) -> object:
    np.add(PLAIN, x, out=PLAIN)
    return PLAIN.sum()


RT, VE, TE = "RuntimeError", "ValueError", "TypeError"
A, K, T, S = gj.ArgumentError, gj.ArgumentTypeError, gj.StructureError, gj.ShapeError
D, C = gj.DTypeError, gj.ConcretizationError
JACOBIANS = (gj.jacrev, gj.jacfwd, gj.jacobian, gj.hessian)
SELECTING = (gj.grad, gj.grad_and_value, gj.value_and_grad, *JACOBIANS)


def each(transforms: tuple, code: str, says: str, ours: type, words: str, torch: str, call: Callable) -> list:
    return [Refusal(code, says, ours, f"^{t.__name__}: .*{words}", torch, lambda t=t: call(t)) for t in transforms]


ROWS: list[Refusal] = [
    *each(SELECTING, "E1", "argnums is neither int nor tuple", K, "give an int or a tuple", RT, lambda t: t(f, [0])),
    *each(SELECTING, "E2", "an entry of argnums is no int", K, "is no int", RT, lambda t: t(f, (0, 1.0))),
    *each(SELECTING, "E3", "argnums beyond the arguments", gj.ArgnumsRangeError, "only 2 positional", RT,
          lambda t: t(f, 2)(X, X)),
    *each(SELECTING, "E4", "argnums is empty", A, "is empty", RT, lambda t: t(f, ())),
    *each(SELECTING, "E5", "an argument is named twice", A, "names argument 0 twice", RT,
          lambda t: t(f, (0, -2))(X, X)),
    *each(SELECTING, "E6", "a selected leaf is no array", K, r"args\[0\] is a str", VE, lambda t: t(f)("text", X)),
    Refusal("E7", "a leaf that is no array, in jacfwd and linearize", K, r"args\[0\]\[1\] is a str", "AttributeError",
            lambda: gj.linearize(lambda p: p[0], (X, "text"))),
    Refusal("E8", "primals are no tuple", K, "^jvp: primals must be a tuple", RT, lambda: gj.jvp(np.sin, [X], [X])),
    Refusal("E9", "tangents of another structure", T, "^jvp: tangents.*missing key", RT,
            lambda: gj.jvp(lambda p: p["a"], ({"a": X},), ({"b": X},))),
    Refusal("E10", "a primal or tangent that is no array", K, r"^jvp: tangents\[0\] is a str", RT,
            lambda: gj.jvp(np.sin, (X,), ("text",))),
    Refusal("E12", "a cotangent of another structure", T, "^vjp: cotangent: expected dict, found", RT, cotangent(X)),
    Refusal("E13", "a cotangent of another shape", S, r"^vjp: cotangent\['y'\] has shape \(2,\)", RT,
            cotangent({"y": X[:2], "s": 1.0})),
    Refusal("E14", "a cotangent None", T, r"^vjp: cotangent\['s'\]: expected a leaf, found None", RT,
            cotangent({"y": X, "s": None})),
    Refusal("E15", "keyword arguments of vjp, jvp, linearize", TypeError, "unexpected keyword", TE,
            lambda: gj.vjp(np.sin, X, other=1)),
    Refusal("E16", "a tangent of another shape", S, r"^jvp: tangents\[0\] has shape \(2,\)", RT,
            lambda: gj.jvp(np.sin, (X,), (X[:2],))),
    Refusal("E17", "a linear map: another structure", T, "^linearize: 2 tangents for 1 primals", RT,
            lambda: gj.linearize(np.sin, X)[1](X, X)),
    Refusal("E18", "a linear map: another shape", S, r"^linearize: tangents\[0\] has shape \(2,\)", RT,
            lambda: gj.linearize(np.sin, X)[1](X[:2])),
    *each(JACOBIANS, "E20", "an output without arrays", T, "holds no array", RT, lambda t: t(lambda x: None)(X)),
    *each(JACOBIANS, "E21", "an output leaf that is no array", K, r"output\[1\] is a str", RT,
          lambda t: t(lambda x: (x, "text"))(X)),
    *each(JACOBIANS, "E22", "an integer or boolean output", D, r"output\[1\] has dtype bool", RT,
          lambda t: t(lambda x: (x, x > 1))(X)),
    *each(SELECTING[:3], "E23", "the output of grad is no array", K, "output is a str", RT,
          lambda t: t(lambda x: "text")(X)),
    *each(SELECTING[:3], "E24", "the output of grad is no scalar", S, r"scalar of shape \(\), not \(3,\)", RT,
          lambda t: t(lambda x: x)(X)),
    *each(SELECTING[:3], "E25", "the output of grad is complex", D, "the output is complex128", RT,
          lambda t: t(lambda z: z.sum())(Z)),
    *each(SELECTING, "E26", "has_aux without a pair", T, r"must return a tuple \(output, aux\)", RT,
          lambda t: t(lambda x: [x.sum(), 1], has_aux=True)(X)),
    Refusal("E28", "strict jvp, an output that does not depend", A, "strict=True.*does not depend", RT,
            lambda: gj.jvp(lambda x: np.ones(2), (X,), (X,), strict=True)),
    *each(JACOBIANS, "E29", "complex inputs or outputs", D, r"args\[0\] is complex128", RT,
          lambda t: t(lambda z: z * z)(Z)),
    *each(SELECTING, "E30", "an integer primal", D, r"args\[0\] has dtype int64", RT,
          lambda t: t(lambda x: x.sum() * 1.0)(np.arange(3))),
    Refusal("E31", "an integer primal of jvp or linearize", D, r"^jvp: args\[0\] has dtype int64", VE,
            lambda: gj.jvp(np.sin, (np.arange(3),), (X,))),
    *each(JACOBIANS, "E40", "chunk_size below 1", A, "chunk_size=0 must be at least 1", VE,
          lambda t: t(np.sin, chunk_size=0)),
    Refusal("E41", "vmap: chunk_size below 1", A, "^vmap: chunk_size=-1 must be at least 1", VE,
            lambda: gj.vmap(np.sin, chunk_size=-1)),
    *each((gj.jacrev, gj.vmap), "E42", "chunk_size of a wrong type", K, "chunk_size='2'", TE,
          lambda t: t(np.sin, chunk_size="2")),
    Refusal("E43", "randomness not in the set", A, "^vmap: randomness='maybe'", RT,
            lambda: gj.vmap(np.sin, randomness="maybe")),
    Refusal("E44", "a draw where randomness='error'", A, "randomness", RT,
            lambda: gj.vmap(lambda x: x + gj.random.normal(gj.random.key(0), ()))(X)),
    Refusal("E45", "randomness='same' with parameters that differ between lanes", A, "same", RT,
            lambda: gj.vmap(lambda p: gj.random.wrap(np.random.default_rng(0)).poisson(p), randomness="same")(X)),
    Refusal("E47", "a draw into out=", gj.MutationError, "out=", RT,
            lambda: gj.vmap(lambda x: gj.random.wrap(np.random.default_rng(0)).random(out=PLAIN),
                            randomness="different")(X)),
    Refusal("E50", "in_dims of a wrong type", K, "^vmap: in_dims='0'.*give an int or a tuple", VE,
            lambda: gj.vmap(np.sin, "0")(B)),
    Refusal("E51", "in_dims of another structure", T, r"^vmap: in_dims.*expected 2 entries, found 1", VE,
            lambda: gj.vmap(f, (0,))(B, B)),
    Refusal("E52", "an entry of in_dims is neither int nor None", K, r"^vmap: in_dims\[0\].*use an int, or None", VE,
            lambda: gj.vmap(np.sin, ("0",))(B)),
    Refusal("E53", "an axis for something that is no array", K, r"args\[1\] is a str, not an array; use None", VE,
            lambda: gj.vmap(lambda x, s: x)(B, "text")),
    Refusal("E54", "an axis that the array lacks", gj.AxisError, r"in_dims=2, but leaf args\[0\] has shape", VE,
            lambda: gj.vmap(np.sin, 2)(B)),
    Refusal("E55", "no positional inputs", A, "^vmap: nothing is mapped", VE, lambda: gj.vmap(lambda: 1.0)()),
    Refusal("E56", "nothing mapped", A, "^vmap: nothing is mapped: .*axis_size", VE,
            lambda: gj.vmap(np.sin, (None,))(B)),
    Refusal("E57", "mapped sizes differ", S, r"found 2 in args\[0\], 3 in args\[1\]", VE, lambda: gj.vmap(f)(B, B.T)),
    Refusal("E58", "an entry of out_dims is neither int nor None", K, "^vmap: out_dims.*use an int, or None", VE,
            lambda: gj.vmap(np.sin, out_dims="0")(B)),
    Refusal("E59", "out_dims of another structure", T, "^vmap: out_dims.*expected 2 entries, found 3", VE,
            lambda: gj.vmap(lambda x: (x, x), out_dims=(0, 0, 0))(B)),
    Refusal("E60", "a mapped output with out_dims=None", T, "out_dims=None.*differs between lanes", VE,
            lambda: gj.vmap(np.sin, out_dims=None)(B)),
    Refusal("E61", "an output that is no array with an axis", K, "is a str, not an array; use out_dims=None", VE,
            lambda: gj.vmap(lambda x: "text")(B)),
    Refusal("E62", "out_dims beyond the axes", gj.AxisError, "out_dims=2, but output has 2 axes", "IndexError",
            lambda: gj.vmap(np.sin, out_dims=2)(B)),
    Refusal("E63", "item, float, int or a slice by a mapped value", C, "cond|where|vmap", RT,
            lambda: gj.vmap(lambda x: np.zeros(3)[: x.astype(int)])(X)),
    Refusal("E64", "a branch on a mapped value", C, "where", RT, lambda: gj.vmap(lambda x: x if x > 0 else -x)(X)),
    Refusal("E65", "a result whose shape depends on values", C, "shape of the result depends on values.*np.where", RT,
            lambda: gj.vmap(lambda x: np.where(x > 0))(B)),
    Refusal("E65", "a function that only makes such results", gj.errors.DispatchError, "unique is not supported", RT,
            lambda: gj.vmap(lambda x: np.unique(x))(B)),
    Refusal("E66", "reading through a mapped mask", C, "boolean mask that differs between the lanes", RT,
            lambda: gj.vmap(lambda x: x[x > 0])(B)),
    Refusal("E67", "a mapped value written into a plain array", gj.MutationError, "zeros_like", RT,
            lambda: gj.vmap(written)(B)),
    Refusal("E70", "a value that escaped from vmap", gj.LeakedTracerError, "escaped from vmap of leak", RT, escaped),
    Refusal("E72", "the storage of a mapped value", C, "one value per lane", RT,
            lambda: gj.vmap(lambda x: np.asarray(x).copy())(B)),
    Refusal("E80", "a traced value written into a captured array", gj.MutationError, "traced value into a plain array",
            RT, lambda: gj.grad(written)(X)),
]  # fmt: skip

# Rows without a call here, and why.
ELSEWHERE = {
    "E11": "no primals at all are fine: the tangent of a constant is zero (P10)",
    "E27": "aux may hold anything (P12)",
    "E46": "a draw written into an unmapped buffer makes it mapped (R5, O4)",
    "E68": "an op without batching rule runs lane by lane, with a warning, or raises by setting (V19)",
    "E69": "zero lanes work where the shape is known (V19)",
    "E71": "arrays have no .data that can be written",
    "E81": "arguments may be written to: f gets its own of a NumPy array (J28)",
    "E82": "torch.autograd alone",
    "E83": "torch.autograd alone",
    "E84": "torch.autograd alone",
    "E85": "torch.autograd alone",
    "E86": "no functionalize",
    "E87": "a pullback may be called any number of times (C3)",
}

# Custom functions and operations: tests in tests/control name these codes. (what is wrong, ours, torch's)
NIE = "NotImplementedError"
CUSTOM = {
    "E91": ("no batching rule, where the fallback is off", "MissingRuleError", RT),
    "E92": ("a batching rule given twice", "RegistrationError", RT),
    "E93": ("a batching rule that returns no pair", "StructureError", RT),
    "E94": ("a batching rule with out_dims of another structure", "StructureError", RT),
    "E95": ("arrays by keyword only", "RegistrationError", NIE),
    "E96": ("no jvp rule, and none that one follows from", "MissingRuleError", NIE),
    "E97": ("an operand saved and returned as a result: fine here, results are copies", "", RT),
    "E98": ("a rule for one derivative, differentiated twice", "MissingRuleError", RT),
    "E99": ("a name without namespace", "RegistrationError", VE),
    "E100": ("a namespace with a dot, or a reserved one", "RegistrationError", VE),
    "E101": ("a name of an overload", "RegistrationError", VE),
    "E102": ("a prototype that says too little", "RegistrationError", VE),
    "E103": ("a prototype that is not functional", "RegistrationError", VE),
    "E104": ("defined twice", "RegistrationError", RT),
    "E105": ("another device type than cpu and cuda", "RegistrationError", VE),
    "E106": ("a second implementation or rule of one kind", "RegistrationError", RT),
    "E107": ("an unknown operation", "RegistrationError", f"{VE}, {RT}"),
    "E108": ("no implementation for the device", "MissingRuleError", NIE),
    "E109": ("a call without arrays", "MissingRuleError", NIE),
    "E110": ("half of a backward rule", "MissingRuleError", RT),
    "E111": ("no derivative rule", "MissingRuleError", RT),
    "E112": ("a backward rule with wrong names, shapes or lists", "StructureError, ShapeError", RT),
    "E113": ("output_differentiability malformed", "RegistrationError", RT),
    "E114": ("a result that shares memory with an operand", "RegistrationError", RT),
    "E116": ("no formula at the time of the sweep", "MissingRuleError", RT),
    "E118": ("nothing says on which device to run", "MissingRuleError", VE),
}
ELSEWHERE |= {
    "E90": "rules are plain functions: there is no context object to set up",
    "E115": "operations that write into operands cannot be defined",
    "E117": "the prototype's annotations are the only schema",
}

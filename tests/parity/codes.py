"""Every behaviour that torch.func's own tests ask for, in our words, and what becomes of it here.

A: holds as it is. M: holds after translation (`why` says into what), or does not apply (`why` says
the reason). N: about torch alone. S: replaced by a convention of our own, which `why` names.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One behaviour: its code, its mark, what it says, the classes raised here and by torch."""

    code: str
    mark: str
    says: str
    ours: str = ""
    torch: str = ""
    why: str = ""


def A(code: str, says: str, ours: str = "", torch: str = "") -> Row:
    return Row(code, "A", says, ours, torch)


def M(code: str, says: str, why: str, ours: str = "", torch: str = "") -> Row:
    return Row(code, "M", says, ours, torch, why)


def N(code: str, says: str, why: str) -> Row:
    return Row(code, "N", says, "", "", why)


def S(code: str, says: str, why: str, ours: str = "", torch: str = "") -> Row:
    return Row(code, "S", says, ours, torch, why)


ARG, KIND, RANGE, TREE = "ArgumentError", "ArgumentTypeError", "ArgnumsRangeError", "StructureError"
SHAPE, DTYPE, AXIS, VALUE = "ShapeError", "DTypeError", "AxisError", "ConcretizationError"
WRITE, RULE, LEAK, REG = "MutationError", "MissingRuleError", "LeakedTracerError", "RegistrationError"
RT, VE, TE, NIE, IE, AE = ("RuntimeError", "ValueError", "TypeError", "NotImplementedError", "IndexError",
                           "AttributeError")  # fmt: skip

GROUPS: dict[str, list[Row]] = {
    "Selecting arguments": [
        A("S1", "argnums as float or list is refused, and a float or a tuple inside the tuple", KIND, RT),
        A("S2", "argnums beyond the arguments, of either sign, alone or in a tuple, are refused", RANGE, RT),
        A("S3", "an empty tuple is refused", ARG, RT),
        A("S4", "the same argument twice is refused, also by its negative number", ARG, RT),
        A("S5", "an int gives the bare result, a tuple of one a tuple"),
        A("S6", "negative ints count from the end"),
        A("S7", "tuples may mix signs"),
        A("S8", "a selected argument keeps its tree"),
        A("S9", "the tuple orders the results"),
    ],
    "grad and vjp": [
        A("G1", "the derivative of a scalar primitive"),
        A("G2", "a reshape and a sum give ones"),
        M("G3", "a layer on an array of several axes, then an activation in place", "`out=` and `*=` on a result"),
        A("G4", "keyword arguments equal positional ones"),
        A("G5", "a matrix product and a sum"),
        A("G6", "cross-entropy with integer targets as another argument"),
        A("G7", "inside f the value tells the shape, dtype and size of the array"),
        M("G8", "sparse layouts", "does not apply: arrays here are dense"),
        M("G9", "writes into a copy, into a view, and into a base seen through a view", "writes are functional"),
        A("G10", "writing a traced value into a captured array is refused", WRITE, RT),
        A("G11", "grad of grad"),
        S("G12", "a value that leaves f becomes a plain one", "a traced value that leaves f raises", LEAK),
        M("G13", "seeding inside f reproduces", "a NumPy generator made inside f"),
        A("G14", "vjp returns the value and a closure"),
        A("G15", "two identical outputs add their cotangents"),
        M("G16", "a conjugate under grad", "np.conj and .conj()"),
        N("G17", "mixing with torch.autograd", "one system only"),
        A("G18", "grad of vjp, vjp of grad, grad of vjp of grad"),
        M("G19", "derivatives through views, and views written to", "views of traced arrays share writes"),
        A("G20", "argnums: messages, int against tuple, order, negative", RANGE, RT),
        A("G21", "trees of arguments with argnums int, (0,) and (0, 1)"),
        A("G22", "aux of any tree; a list or three results instead of a pair are refused", TREE, RT),
        A("G23", "an unused leaf of a tree gets a zero gradient"),
        A("G24", "an output that does not depend on the input gives zeros"),
        A("G25", "the Hessian of a linear map by jacrev of jacrev is zero, three axes"),
        A("G26", "vjp: a partly unused tree gets zeros"),
        A("G27", "vjp: cotangents of a tree of outputs add up"),
        A("G28", "vjp: outputs None and () and texts are refused; list, dict and nested ones keep their types",
          f"{TREE}, {KIND}", RT),
        A("G29", "vjp: a cotangent of another structure is refused", TREE, RT),
        A("G30", "vjp: aux, an array or a tree"),
        N("G31", "functional_init", "modules"),
        M("G32", "assignment through a boolean mask inside grad", "functional write"),
        A("G33", "an array made inside f"),
        A("G34", "repr shows one marker per level, for nestings of vmap and grad, float dtypes, any shape"),
        A("G35", "repr of a captured plain array is untouched"),
        M("G36", "a part without derivative: outside, inside, mixed, nested, with values, on vjp and its closure",
          "`stop_gradient`, which is an operation and no mode"),
        M("G37", "inference mode in every place", "settings: what a block or an error leaves never leaks"),
        A("G38", "levels are closed exactly, mixtures of vmap, grad and jvp too"),
    ],
    "Custom rules": [
        M("AF1", "finished levels in the arguments are unwrapped", "does not apply: a leaked value raises"),
        A("AF2", "an output that is not used has no cotangent: zeros for the rule, unless it asks for None"),
        M("AF3", "a function that returns its input",
          "under a transform the result is a copy; a plain call is the function's own"),
        A("AF4", "a rule can be told which inputs are differentiated"),
        A("AF5", "a rule meant for one derivative raises on the second", RULE, RT),
        M("AF6", "the recorded node carries the user's name", "the name in `repr` and in errors"),
        A("AV1", "vmap of an op with neither rule nor fallback raises", RULE, RT),
        A("AV2", "a batching rule given twice is refused", REG, RT),
        A("AV3", "the batching rule is told the size and the randomness"),
        A("AV4", "the batching rule is told which arguments are mapped, and where, in the tree of each"),
        A("AV5", "the batching rule is not asked where nothing is mapped"),
        A("AV6", "a batching rule may return unmapped results, which are repeated"),
        A("AV7", "a batching rule that does not return a pair is refused", TREE, RT),
        A("AV8", "a batching rule with out_dims of another structure is refused", TREE, RT),
        A("AV9", "arrays by keyword only are refused; keyword arguments are bound by the signature",
          f"{ARG}, {REG}", NIE),
    ],
    "vmap of grad": [
        A("VG1", "gradients per example equal a loop: 64 examples, float32"),
        M("VG2", "the same with a view written in place", "functional write through a view"),
        A("VG3", "buffers made inside a mapped grad take mapped values"),
        A("VG4", "a net with an embedding: gradients per example, two ways to call"),
        A("VG5", "vmap over a pullback of log_softmax, the cotangent unmapped"),
    ],
    "Jacobians": [
        A("J1", "elementwise functions have a diagonal Jacobian"),
        A("J2", "arrays of several axes"),
        A("J3", "gather by integers"),
        A("J4", "output and input differ in size, by slices and new axes"),
        A("J5", "vmap of a Jacobian"),
        A("J6", "a Jacobian of a Jacobian"),
        A("J7", "argnums=1"),
        A("J8", "several outputs by several argnums: how the containers nest"),
        A("J9", "argnums 0 against (0,) for a tuple of outputs"),
        A("J10", "dict outputs"),
        A("J11", "nested tuples as arguments with argnums (0, 1, 2), (0,) and the default"),
        A("J12", "0-d to 0-d gives 0-d; (1,) gives (1, 1)"),
        A("J13", "aux, an array"),
        A("J14", "aux, a tree; what is no pair is refused", TREE, RT),
        A("J15", "outputs None, () and texts are refused, trees are fine", f"{TREE}, {KIND}", RT),
        A("J16", "trees in, trees out, zeros where nothing depends"),
        A("J17", "dicts in, dicts out, several axes"),
        A("J18", "an input that is not used gives zeros"),
        A("J19", "an output that depends on nothing gives zeros"),
        A("J20", "an empty tuple as output is refused", TREE, RT),
        A("J21", "argnums a tuple or an int: the type of the result"),
        A("J22", "argnums is 0 by default"),
        A("J23", "argnums empty, beyond either end, twice, a float", f"{ARG}, {RANGE}, {KIND}", RT),
        A("J24", "hessian runs"),
        A("J25", "equal to a reference: several inputs and outputs, unrelated ones, 0-d among them"),
        M("J26", "outputs on another device", "an error that names both devices", "BackendError"),
        A("J27", "default arguments of f"),
        M("J28", "a selected argument written into another one", "writes reach f's own copy of a NumPy array"),
        A("J29", "jacrev: chunk sizes 1 to 1000 and both assemblies agree on nested outputs; 0 and -2 are refused",
          ARG, VE),
        A("J30", "chunked vmap(jacrev(jacrev)) in both assemblies"),
        A("J31", "chunk_size=1 makes no batch axis anywhere"),
        A("J32", "complex inputs and outputs are refused", DTYPE, RT),
        A("J33", "other arguments may be anything"),
    ],
    "hessian": [
        A("H1", "a quadratic"),
        A("H2", "a product of three matrices"),
        A("H3", "outputs that depend on no or not all inputs"),
        A("H4", "vmap(hessian) equals vmap(jacrev(jacrev)) with values mapped at one level only"),
    ],
    "jvp": [
        A("P1", "writing a traced value into a captured array is refused", f"{WRITE}, {VALUE}", RT),
        A("P2", "one input"),
        A("P3", "several inputs"),
        A("P4", "trees of inputs"),
        A("P5", "primals no tuple, structures that differ, leaves that are no arrays, no leaf", f"{KIND}, {TREE}", RT),
        A("P6", "unrelated inputs and outputs"),
        A("P7", "strict refuses an output that does not depend", ARG, RT),
        A("P8", "several outputs, several inputs and outputs"),
        A("P9", "a constant made inside f"),
        A("P10", "lengths that differ, no primals, a list for a tuple", f"{TREE}, {KIND}", RT),
        A("P11", "trees of outputs; None, () and texts are refused", f"{TREE}, {KIND}", RT),
        A("P12", "aux, an array or a tree"),
        S("P13", "forward mode switched off", "there is no such switch"),
        M("P14", "jvp inside the forward and backward of a custom function", "rules may call any transform"),
        A("P15", "vmap of vmap of the jvp of a covariance"),
    ],
    "linearize": [
        A("L1", "value and map equal jvp"),
        A("L2", "a tuple of results"),
        A("L3", "vmap of the linear map"),
        A("L4", "an f that holds the grad of a linear function"),
        A("L5", "nested inputs and outputs"),
        A("L6", "number and shape of the tangents are checked; another float width is cast", f"{TREE}, {SHAPE}", RT),
    ],
    "Writes under vmap of jvp": [
        M("IV1", "a traced value written into a traced array", "functional write"),
        M("IV2", "a view is written, the base shows it", "functional write"),
        M("IV3", "the base is written, the view shows it", "functional write"),
        M("IV4", "a traced value written into a view of a copy of a plain array", "a buffer made by our namespace"),
        M("IV5", "a traced value written into a plain array", "our buffers; NumPy's own is refused", WRITE),
    ],
    "Helpers": [
        M("HP1", "a wrapper of the context object", "does not apply: rules get values, no context"),
        M("HP2", "the value below two vmaps can be had", "`repr` shows it; `value` asks for one, and refuses"),
        A("HP3", "cotangents of mapped and unmapped arguments of a custom rule: summed or repeated as needed"),
    ],
    "Compositions": [
        A("C1", "grad of grad, vmap, vjp; vmap of grad, vmap, vjp, a pullback; vjp of grad, vmap, vjp"),
        N("C2", "deprecation warnings of the old module", "there is none"),
        M("C3", "traced programs run again with new data", "a pullback and a linear map are such programs"),
        A("C4", "import is silent"),
        N("C5", "autograd calls inside f", "one system only"),
        A("C6", "a function without the rule that is needed raises under every transform", RULE, RT),
        N("C7", "hooks on saved tensors", "torch's own"),
        M("C8", "a global dispatch feature switched off", "does not apply: dispatch looks at operands only"),
        A("MF1", "states of several models stack on axis 0: at least one, all alike", TREE, RT),
    ],
    "Examples": [
        A("X1", "MAML on a regression: vmap of an inner step, gradient of the outer loss"),
        A("X2", "MAML with convolutions, group norm and pooling, double precision"),
        A("X3", "batch norm without running statistics, gradients per example"),
        A("X4", "Lennard-Jones: forces by vmap of jacfwd and jacrev inside a loss that is differentiated again"),
        A("X5", "a training step of an ensemble: vmap of grad_and_value"),
        A("X6", "a search of learning rates: the same dropout in every model, three kinds of dropout"),
        A("X7", "a residual net, gradients per example"),
        N("FZ", "functionalize", "writes are functional from the start"),
    ],
    "Operations that hold functions": [
        A("HO1", "an own op with its own derivative"),
        A("HO2", "vmap and vmap of vmap, with a static axis among the arguments"),
        A("HO3", "grad and grad of grad"),
        A("HO4", "vmap of grad"),
        A("HO5", "stopped outside and inside"),
        A("HO6", "the transformed function keeps its name"),
        N("HO7", "functional_call with two dicts", "modules"),
        A("CT1", "grad through a strided slice and a mean"),
        A("CT2", "vjp through a gather, with a registered container"),
        A("CT3", "the trace of a matrix under vjp"),
        A("TL1", "x.tolist() under grad, nested, of two axes, complex: its entries are traced"),
    ],
    "vmap": [
        A("V1", "outputs that are no arrays: texts are refused without out_dims=None", KIND, VE),
        A("V2", "mapped sizes that differ, flat and in trees", SHAPE, VE),
        A("V3", "no inputs, or none that is mapped", ARG, VE),
        A("V4", "a constant result is repeated"),
        A("V5", "one and several inputs and outputs, a list of one"),
        A("V6", "nested: the same axis at 2 and 3 levels, outer products at 2 and 3 levels, an inner one that "
                "ignores its argument"),
        M("V7", "diag_embed, nested", "the same by np.eye"),
        A("V8", "an operation that cannot be reached is named", "DispatchError", RT),
        A("V9", "out_dims 1, 2, -1 on all outputs, and arrays of many axes"),
        A("V10", "out_dims as tuples, negative, nested"),
        A("V11", "out_dims=(1,) for one output"),
        A("V12", "out_dims=None passes texts, None and unmapped arrays; a mapped value with None is refused", TREE, VE),
        A("V13", "trees of results, OrderedDict, out_dims nested and spread"),
        A("V14", "out_dims of a wrong type, too few, too many, beyond the axes", f"{KIND}, {TREE}, {AXIS}",
          f"{VE}, {IE}"),
        A("V15", "in_dims other than 0, None, negative, nested, with out_dims"),
        A("V16", "item() and `if` on a mapped value are refused", VALUE, RT),
        A("V17", "nested inputs: tuple, list, dict, deep"),
        A("V18", "in_dims of a wrong type, too few, on no array, beyond the axes", f"{KIND}, {TREE}, {AXIS}", VE),
        A("V19", "the loop fallback: odd axes, nested, 10 000 lanes, several results, zero lanes; in-place ops"),
        N("V20", "backward inside", "torch's own"),
        A("V21", "many cotangents at once by vmap over the rows of the identity"),
        A("V22", "functools.partial"),
        N("V23", "nn.Module", "modules"),
        A("V24", "a pullback with a part that is not used"),
        A("V25", "an axis merged into another and split off again, negative and of size zero"),
        A("V26", "two levels of which each maps one operand only"),
        M("V27", "a decomposition is used where the fallback is switched off", "`register_decomposition`"),
        N("V28", "autocast", "torch's own"),
        A("V29", "a given number of lanes without mapped inputs; results that are no arrays, not repeated"),
        N("V30", ".data", "torch's own"),
    ],
    "vmap of operations": [
        A("O1", "elementwise functions of one operand"),
        M("O2", "clone and contiguous per example", "`.copy()`, np.ascontiguousarray"),
        A("O3", "clip by arrays and numbers"),
        M("O4", "copy into a mapped array, refused into an unmapped one", "a write makes the buffer mapped: it works"),
        A("O5", "add, sub, mul, div, pow: ranks that differ, numbers on both sides, 0-d operands do not promote"),
        M("O6", "as_strided", "does not apply: no strides here", ""),
        A("O7", "negative log likelihood, three reductions"),
        A("O8", "adaptive average pooling"),
        A("O9", "matrix products of 1, 2 and 3 axes, and their shape errors", SHAPE, RT),
        A("O10", "concatenate and stack"),
        A("O11", "conj, real, imag, complex numbers from parts"),
        M("O12", "strides asked", "does not apply: results are C-contiguous"),
        A("O13", "split, array_split, unstack"),
        A("O14", "comparisons"),
        A("O15", "cross with three lanes takes the axis of the example"),
        A("O16", "diagonal, broadcast_to, slices, squeeze of an example's axes only, expand_dims, moveaxis, "
                 "transposes, reshape, also of 0-d"),
        M("O17", "fill and zero in place", "functional write"),
        A("O18", "is it complex, is it floating"),
        A("O19", "buffers like the argument have the example's shape"),
        A("O20", "roll without axes, repeat and tile, trace, slogdet, one-hot"),
        A("O21", "sum and mean over all axes, of either sign; argmax"),
        A("O22", "result_type"),
        A("O23", "casts"),
        A("O24", "convolutions of 1, 2 and 3 axes: groups, stride, padding, dilation, no bias"),
        A("O25", "nested 'different' randomness equals one direct draw"),
        A("O26", "vmap in a given number of chunks, over in and out axes and randomness"),
        A("O27", "chunk_size 1 to 100 for one and nested inputs and outputs; -1, 0 and bad out_dims; nested", ARG, VE),
    ],
    "Batched gradients": [
        A(f"BG{i}", f"cotangents in a batch, contiguous and not, first and second order: {name}")
        if name not in ("a view written in place", "attention")
        else M(f"BG{i}", f"cotangents in a batch, first and second order: {name}", "written with NumPy's functions")
        for i, name in enumerate((
            "add", "sub", "mul", "div", "binary cross-entropy", "log_softmax", "broadcast_to", "gather by arrays",
            "gammaln", "log", "logsumexp", "log1p", "max", "median", "min", "transpose", "reshape", "sigmoid",
            "stack", "one row", "slice", "trace, and grad of grad zero", "where with three arguments, one refused",
            "threshold", "a view written in place", "many views", "diagonal", "an unrelated output",
            "the same grad twice", "attention"), 1)
    ],
    "Randomness": [
        A("R1", "uniform, normal, integers; from a generator, from keys and from NumPy's global state"),
        A("R2", "permutations"),
        A("R3", "dropout, alpha, per feature, and both: statistics and which planes vanish"),
        A("R4", "draws in the shape of another array"),
        A("R5", "buffers filled in place by draws"),
        A("R6", "bernoulli with mapped p: also with one draw for all lanes, where torch raises"),
        A("R7", "normal and binomial with two array parameters", ARG, RT),
        A("R8", "normal, bernoulli, gamma, dirichlet, poisson"),
        A("R9", "multinomial with mapped parameters or not"),
        A("R10", "out= is refused", WRITE, RT),
        A("R11", "chunks of a 'different' vmap draw other numbers each"),
        S("R12", "jacfwd honours randomness", "jacfwd runs f once, unmapped"),
        A("R13", "dropout of an unmapped value beside mapped arguments"),
    ],
    "Failures": [
        A("F1", "an op without rules fails under vmap, grad, grad_and_value, vjp, jvp, jacrev, jacfwd", RULE, RT),
        A("D1", "all and any of a whole batch, outside of vmap"),
        N("NT1", "ragged inputs", "not offered"),
    ],
}  # fmt: skip

QUIRKS: list[Row] = [
    A("Q1", "dicts in in_dims, out_dims, tangents and cotangents match by key, in any order"),
    A("Q2", "chunk_size with out_dims=None works"),
    A("Q3", "chunk_size with zero lanes works"),
    A("Q4", "jacrev with chunk_size=1 and an empty output works"),
    A("Q5", "jacfwd with an empty input works, with a constant output and with aux"),
    A("Q6", "an unmapped output with any out_dims is repeated rightly"),
    A("Q7", "preallocated Jacobians under vmap with a captured mapped value"),
    A("Q8", "jvp and jacfwd through a custom op: its rule, or an error, never zeros", RULE, "silent zeros"),
    A("Q9", "grad of an integer or boolean scalar is refused", DTYPE, "silent zeros"),
    A("Q10", "a gather by a mapped 0-d index has the shape that a loop gives"),
    A("Q11", "complex arguments that are not selected are fine"),
    A("Q12", "a leaf that is no array raises the same class everywhere", KIND, f"{VE}, {AE}, {RT}"),
    A("Q13", "chunk_size is checked when the transform is built, True refused", f"{KIND}, {ARG}", TE),
    A("Q14", "no NaN off the diagonal where a slope is infinite"),
    A("Q15", "blocks of a Jacobian own their memory"),
    A("Q16", "jvp and linearize treat tangents of another float width alike"),
    A("Q17", "messages name the function that was called"),
]
ROWS: list[Row] = [*(row for group in GROUPS.values() for row in group), *QUIRKS]

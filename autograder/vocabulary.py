"""The primitives that everything may be built from where an exercise says "build it yourself".

A list of what is the answer cannot keep up with PyTorch, so the rule names what is *allowed*: what is here, and what an
exercise adds to it (`builds_on`). Whatever else of PyTorch a definition calls is refused, under the name by which a
student knows it; of other packages, only those in PACKAGES may be used.

This module is sent where the student's code runs: it imports torch and the standard library, and holds no answer.
"""

import inspect
import sys
from functools import cache
from types import BuiltinFunctionType, MethodDescriptorType, MethodWrapperType, ModuleType, WrapperDescriptorType
from typing import Any

from torch._ops import OpOverload, OpOverloadPacket

from autograder.forbidden import families, family_of_path, resolve

PACKAGES = frozenset({"numpy", "regex", "tqdm", "typing_extensions", "IPython"})
"""What may be used beside torch and the standard library: none of them holds an answer."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = _words(
    """
    add sub subtract rsub mul multiply div divide true_divide floor_divide remainder fmod neg negative positive abs
    absolute sign sgn signbit copysign pow float_power square sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10
    log1p logaddexp logaddexp2 xlogy xlog1py erf erfc erfinv erfcx ndtr ndtri log_ndtr sin cos tan asin acos atan atan2
    arctan2 sinh cosh tanh asinh acosh atanh sinc sigmoid expit logit lgamma gammaln digamma psi ceil floor round trunc
    fix frac
    clamp clip clamp_min clamp_max maximum minimum fmax fmin lerp addcmul addcdiv hypot heaviside nan_to_num relu
    threshold ldexp frexp nextafter gcd lcm deg2rad rad2deg bitwise_and bitwise_or bitwise_xor bitwise_not
    bitwise_left_shift bitwise_right_shift logical_and logical_or logical_xor logical_not where
    eq ne lt le gt ge equal not_equal less less_equal greater greater_equal allclose isclose isnan isinf isfinite
    isposinf isneginf isreal isin is_same_size is_set_to
    sum nansum mean nanmean median nanmedian mode prod max min amax amin aminmax argmax argmin all any std var std_mean
    var_mean logsumexp cumsum cumprod cummax cummin logcumsumexp norm vector_norm matrix_norm frobenius_norm dist cdist
    count_nonzero bincount histc histogram unique unique_consecutive quantile nanquantile trace diff trapezoid
    cumulative_trapezoid gradient
    matmul mm bmm mv dot vdot vecdot inner outer ger addmm addmv addbmm baddbmm addr chain_matmul multi_dot tensordot
    einsum kron linear conv1d matrix_power cross bilinear
    view view_as reshape reshape_as flatten unflatten ravel squeeze unsqueeze transpose t permute movedim moveaxis
    swapaxes swapdims adjoint expand expand_as expand_copy broadcast_to broadcast_tensors repeat repeat_interleave tile
    cat concat concatenate stack hstack vstack dstack column_stack row_stack split split_with_sizes tensor_split
    unsafe_split unsafe_chunk chunk hsplit vsplit dsplit unbind narrow narrow_copy select index index_select index_add
    index_copy index_fill index_put index_reduce gather scatter scatter_add scatter_reduce take take_along_dim put
    masked_fill masked_scatter masked_select nonzero nonzero_static argwhere flip fliplr flipud roll rot90 tril triu
    tril_indices triu_indices diag diagonal diag_embed diagflat fill_diagonal diagonal_scatter select_scatter
    slice_scatter slice as_strided unfold meshgrid cartesian_prod combinations block_diag atleast_1d atleast_2d
    atleast_3d pad constant_pad_nd one_hot bucketize searchsorted sort argsort topk kthvalue msort
    pad_sequence renorm
    zeros ones full empty zeros_like ones_like full_like empty_like empty_strided new_tensor new_zeros new_ones new_full
    new_empty new_empty_strided new arange range linspace logspace eye tensor as_tensor asarray from_numpy frombuffer
    scalar_tensor sparse_coo_tensor complex polar view_as_real view_as_complex real imag angle conj conj_physical
    resolve_conj resolve_neg is_conj is_neg
    rand randn randint randperm normal uniform bernoulli multinomial poisson exponential log_normal random cauchy
    geometric rand_like randn_like randint_like dropout embedding native_dropout
    size dim ndimension ndim numel nelement stride storage_offset is_contiguous element_size itemsize nbytes item tolist
    numpy cpu cuda to to_dense type type_as float double half bfloat16 int long short char byte bool cfloat cdouble
    clone contiguous detach copy data_ptr requires_grad retain_grad register_hook register_post_accumulate_grad_hook
    backward is_floating_point is_complex is_tensor is_signed is_nonzero is_inference is_pinned is_shared fill zero set
    resize resize_as get_device    apply map map2 storage untyped_storage
    unsafe_split_with_sizes
    broadcast_shapes promote_types result_type can_cast pin_memory share_memory module_load
    get_default_dtype is_grad_enabled manual_seed seed initial_seed get_rng_state set_rng_state
    use_deterministic_algorithms
    are_deterministic_algorithms_enabled get_num_threads set_num_threads is_storage typename set_default_dtype
    arcsin arccos arctan arcsinh arccosh arctanh trapz pdist binomial inverse inv pinverse pinv solve solve_ex lstsq det
    slogdet logdet svd svdvals eig eigh eigvals eigvalsh qr cholesky cholesky_solve cholesky_inverse triangular_solve
    solve_triangular lu lu_factor lu_solve matrix_exp matrix_rank cov corrcoef i0 i0e i1 igamma igammac polygamma
    mvlgamma multigammaln sum_to_size values indices coalesce is_coalesced vander unravel_index from_dlpack as_subclass
    sym_int sym_max sym_min sym_float sym_not get_float32_matmul_precision set_float32_matmul_precision
    set_default_device get_default_device set_printoptions is_inference_mode_enabled  get_device_module
    """
)
"""Functions of `torch`, `torch.special`, `torch.linalg` and `F`, methods of a tensor, and operators below them."""

_WITHIN = _words(
    """
    _to_copy _unsafe_view _local_scalar_dense _reshape_alias _conj _neg_view alias lift lift_fresh lift_fresh_copy
    detach_copy _unsafe_index _unsafe_index_put sym_size sym_numel sym_stride _index_put_impl
    _has_compatible_shallow_copy_type
    select_backward slice_backward convolution _cdist_forward _unique2 unique_dim rsub _efficientzerotensor
    _euclidean_dist _parse_to _typed_storage _linalg_check_errors _assert_async
    _assert_tensor_metadata mT _stack _cat
    _is_all_true _is_any_true set_data _version is_leaf output_nr retains_grad
    """
)
"""What PyTorch makes of these operators one level below."""

NAMES = _words(
    """
    nn.Linear nn.Embedding nn.Dropout nn.Identity nn.Flatten nn.Unflatten nn.ReLU nn.Tanh nn.Sigmoid nn.Bilinear
    F.tanh F.sigmoid F.relu_ F.embedding F.dropout F.linear F.relu F.pad
    torch.Tensor torch.FloatTensor torch.DoubleTensor torch.LongTensor torch.BoolTensor torch.IntTensor torch.ByteTensor
    torch.CharTensor torch.ShortTensor torch.HalfTensor torch.BFloat16Tensor Tensor
    torch.Size torch.device torch.dtype torch.Generator torch.finfo torch.iinfo torch.memory_format torch.layout
    torch.no_grad torch.enable_grad torch.inference_mode torch.set_grad_enabled torch.compile torch.sym_int
    torch.jit.script torch.jit.trace torch.jit.ignore torch.jit.export torch.jit.unused torch._assert torch.is_storage
    torch.cuda.is_available torch.cuda.device_count torch.backends.mps.is_available torch.get_default_device
    """
)
"""Classes and functions that are written in Python, under the names that `title` gives them."""

MODULES = (
    "torch.nn.init", "torch.nn.parameter", "torch.nn.modules.module", "torch.nn.modules.container",
    "torch.nn.utils.rnn", "torch.nn.utils.convert_parameters", "torch.nn.utils.parametrize", "torch.autograd",
    "torch._functorch", "torch.func", "torch._vmap_internals", "torch.optim.optimizer", "torch.serialization",
    "torch.random", "torch.utils.data", "torch.utils.checkpoint", "torch.utils.hooks", "torch.utils.weak",
    "torch.testing", "torch.return_types", "torch.compiler", "torch._compile", "torch._dynamo", "torch._jit_internal",
    "torch.utils._pytree", "torch.utils._contextlib", "torch.utils._python_dispatch", "torch.utils._stats",
    "torch.utils._device", "torch.utils._foreach_utils", "torch.utils._config_module", "torch.utils._cxx_pytree",
    "torch._tensor_str", "torch.overrides", "torch.amp", "torch.storage", "torch._utils", "torch._ops",
    "torch.profiler", "torch._prims_common", "torch._library", "torch.types", "torch._weights_only_unpickler",
    "torch._C", "torch._logging", "torch.torch_version", "torch._linalg_utils", "torch.jit._script",
    "torch.jit._trace", "torch.jit._recursive", "torch.fx.traceback",
)  # fmt: skip
"""The machinery that calls what it is given: a module's call, transforms, gradients, saving. It holds no answer itself,
and what it calls is looked at in its turn."""

_SHORT = (
    ("torch.nn.functional.", "F."), ("torch._C._nn.", "F."), ("torch.nn.modules.", "nn."), ("torch.nn.", "nn."),
    ("torch._C._special.special_", "torch.special."), ("torch._C._linalg.linalg_", "torch.linalg."),
    ("torch._tensor.", ""), ("torch._C.TensorBase.", "Tensor."), ("torch.functional.", "torch."),
    ("torch.masked._ops.", "torch.masked."),
    ("torch._VariableFunctionsClass.", "torch."), ("torch._C._VariableFunctions.", "torch."),
    ("torch.autograd.grad_mode.", "torch."), ("torch._C.", "torch._C."),
)  # fmt: skip


def refused(thing: Any) -> str:
    """The name of something of PyTorch's that is not among the primitives; empty where it is.

    Args:
        thing: what is called; what cannot be called is never refused.
    """
    if isinstance(thing, ModuleType) or not callable(thing):
        return ""
    try:
        if family := families().get(thing):
            return family
    except TypeError:  # it cannot be a key, so it is none of PyTorch's functions
        return ""
    if isinstance(thing, OpOverload | OpOverloadPacket):
        name = (thing.overloadpacket if isinstance(thing, OpOverload) else thing)._qualified_op_name
        space, _, name = name.partition("::")
        free = space == "profiler" or (space == "aten" and is_operator(name))
        return "" if free else f"torch.ops.{space}.{name}"
    thing = inspect.unwrap(thing) if inspect.isfunction(thing) else thing
    thing = thing.__func__ if inspect.ismethod(thing) else thing
    if inspect.isfunction(thing) or isinstance(thing, type):
        made = "<locals>" in thing.__qualname__  # by a decorator, which left the name that it is known by
        return refused_definition(thing.__module__ or "", thing.__name__ if made else thing.__qualname__)
    return _refused_c(thing)


def refused_definition(module: str, qualname: str) -> str:
    """The name of a function or class that is written in Python and not among the primitives; empty where it is.

    Args:
        module: where it is defined.
        qualname: its name there; of a method or an inner function, the class or function around it counts.
    """
    if not module.startswith("torch"):
        return ""
    if within(module, MODULES):
        return ""
    if within(module, ("torch.distributions",)):
        return "torch.distributions"
    name = title(module, qualname)
    if name in NAMES or (name.startswith(("torch.", "F.", "Tensor.")) and name.count(".") == 1 and is_operator(name)):
        return ""
    return family_of_path(name) or name


def refused_path(path: str) -> str:
    """The name of what stands at a dotted path and may not be used; empty where it may, or where it is a module.

    Args:
        path: from the name of a package on, as imports give it.
    """
    package = path.partition(".")[0]
    if package != "torch":
        known = package in sys.stdlib_module_names or package in PACKAGES
        return "" if known or not package.isidentifier() else package
    if family := family_of_path(path):
        return family
    thing = resolve(path)
    return path if thing is None and path != "torch" and not _is_none(path) else refused(thing)


def is_operator(name: str) -> bool:
    """Whether a function, method or operator of this name is a primitive, in place or not, over lists or not."""
    bare = name.rpartition(".")[2].removeprefix("special_").removeprefix("linalg_").removeprefix("_foreach_")
    if bare.startswith("__") and bare.endswith("__"):
        return True
    return (
        bare in OPERATORS or bare in _WITHIN or bare.rstrip("_") in OPERATORS or bare.removesuffix("_copy") in OPERATORS
    )


def within(module: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of these, or lies in one."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def is_machinery(module: str) -> bool:
    """Whether a module of PyTorch's only calls what it is given."""
    return within(module, MODULES)


def title(module: str, qualname: str) -> str:
    """The name by which a student knows a definition: `nn.LayerNorm`, `F.group_norm`, `torch._refs.softmax`."""
    outer, _, inner = qualname.partition(".<locals>")
    if not inner and "." in outer and not outer.startswith("Tensor."):
        outer = outer.partition(".")[0]  # a method counts as its class
    if module.startswith("torch.nn.modules."):
        return f"nn.{outer}"
    if module == "torch.nn.parameter":
        return f"nn.{outer}"
    path = f"{module}.{outer}"
    for long, short in _SHORT:
        if path.startswith(long):
            return short + path.removeprefix(long)
    return path


@cache
def _c_functions() -> tuple[type, ...]:
    return (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, MethodWrapperType)


def _refused_c(thing: Any) -> str:
    """As `refused`, for what is written in C, and for objects that can be called."""
    name = getattr(thing, "__name__", "")
    if not isinstance(thing, _c_functions()):
        return ""  # an object of some class: what it calls is looked at
    owner = getattr(thing, "__objclass__", None) or getattr(thing, "__self__", None)
    place = (thing.__module__ if isinstance(thing, BuiltinFunctionType) else None) or "torch"
    if isinstance(owner, type) and owner.__name__ == "TensorBase":
        place = "torch._C.TensorBase"
    if is_operator(name) or not place.startswith("torch"):
        return ""
    path = f"{place}.{name}"
    return next((short + path.removeprefix(long) for long, short in _SHORT if path.startswith(long)), path)


def _is_none(path: str) -> bool:
    """Whether a path leads to something that is None, rather than to nothing."""
    parent, _, name = path.rpartition(".")
    return hasattr(resolve(parent), name)

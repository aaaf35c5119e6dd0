"""Correct solutions of chapter 04 in other styles and by other algorithms."""

import math

import torch
from torch import nn
from torch.nn import functional

from autograder.checks import variant
from solutions.attention import MultiHeadAttention
from solutions.block import attention_function, make_attention, make_feed_forward, make_norm
from solutions.layers import gelu


@variant("layers.LayerNorm", "rows, var_mean, and a diagonal matrix")
class LayerNormRows(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = (nn.Parameter(start(d_model)) for start in (torch.ones, torch.zeros))

    def forward(self, x):
        rows = x.reshape(-1, x.size(-1))
        variance, mean = torch.var_mean(rows, dim=1, correction=0)
        rows = (rows - mean[:, None]).div((variance + self.eps).sqrt()[:, None])
        return torch.addmm(self.bias, rows, torch.diag(self.weight)).view_as(x)


@variant("layers.LayerNorm", "var with unbiased=False, and rsqrt")
class LayerNormVar(nn.Module):
    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.register_parameter("bias", nn.Parameter(torch.full((d_model,), 0.0)))
        self.register_parameter("weight", nn.Parameter(torch.full((d_model,), 1.0)))
        self.epsilon = eps

    def forward(self, x):
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return torch.addcmul(self.bias, (x - mean) * torch.rsqrt(variance + self.epsilon), self.weight)


@variant("layers.LayerNorm", "the mean taken out by a matrix, the root by a power")
class LayerNormProjection(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x):
        size = x.shape[-1]
        centred = x - (x.sum(-1) / size).unsqueeze(-1)
        squares = torch.einsum("...d,...d->...", centred, centred) / size
        return self.bias + self.weight * centred * ((squares + self.eps) ** -0.5)[..., None]


@variant("layers.RMSNorm", "by torch.linalg.vector_norm")
class RMSNormLinalg(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x):
        # eps as one more component: the root of the sum of squares then holds it already.
        more = torch.full_like(x[..., :1], math.sqrt(self.eps * x.size(-1)))
        length = torch.linalg.vector_norm(torch.cat([x, more], dim=-1), dim=-1, keepdim=True)
        return self.weight * x * (math.sqrt(x.size(-1)) / length)


@variant("layers.RMSNorm", "by the length of the vector")
class RMSNormLength(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x):
        squared_length = (x * x).sum(dim=-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(squared_length / x.size(-1) + self.eps))


@variant("layers.RMSNorm", "a power, and eps kept as a tensor's factor")
class RMSNormPower(nn.Module):
    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((d_model,)))
        self.settings = {"eps": eps, "width": d_model}

    def forward(self, x):
        total = torch.einsum("...d,...d->...", x, x)[..., None] + self.settings["eps"] * self.settings["width"]
        return x * self.weight * math.sqrt(self.settings["width"]) / total**0.5


@variant("layers.gelu", "a table of gates")
def gelu_by_table(x, approximate="none"):
    gates = {
        "none": lambda: torch.distributions.Normal(0.0, 1.0).cdf(x),
        "tanh": lambda: (1 + ((2 / math.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3))).tanh()) / 2,
    }
    if approximate not in gates:
        raise ValueError(f"approximate={approximate}")
    return gates[approximate]() * x


@variant("layers.gelu", "the normal distribution, and a sigmoid for tanh")
def gelu_by_probability(x, approximate="none"):
    match approximate:
        case "none":
            return x * torch.special.ndtr(x)
        case "tanh":
            return x * torch.sigmoid(2 * (2 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x))
        case _:
            raise ValueError(approximate)


@variant("layers.gelu", "erfc, and tanh by exponentials")
def gelu_by_complement(x, approximate="none"):
    forms = {"none", "tanh"}
    if approximate not in forms:
        raise ValueError(f"{approximate} is not one of {forms}")
    if approximate == "none":
        return 0.5 * x * torch.erfc(-x * math.sqrt(0.5))
    inner = math.sqrt(2) / math.sqrt(math.pi) * x * (1 + 0.044715 * x.pow(2))
    tanh = 1 - 2 / (torch.exp(2 * inner) + 1)
    return 0.5 * x * (1 + tanh)


@variant("layers.FeedForward", "a table of functions")
class FeedForwardTable(nn.Module):
    def __init__(self, d_model, d_ff, activation="relu", bias=True, dropout=0.0):
        super().__init__()
        table = {"relu": nn.ReLU(), "gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh")}
        if activation not in table:
            raise ValueError(f"no activation {activation}")
        self.function = table[activation]
        self.up, self.down = nn.Linear(d_model, d_ff, bias), nn.Linear(d_ff, d_model, bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return self.down(self.drop(self.function(self.up(x))))


@variant("layers.FeedForward", "matrices by hand, dropout by hand")
class FeedForwardByHand(nn.Module):
    def __init__(self, d_model, d_ff, activation="relu", bias=True, dropout=0.0):
        super().__init__()
        if not (activation == "relu" or activation in ("gelu", "gelu_tanh")):
            raise ValueError
        self.down = nn.Linear(in_features=d_ff, out_features=d_model, bias=bias)
        self.up = nn.Linear(in_features=d_model, out_features=d_ff, bias=bias)
        self.activation, self.p = activation, dropout

    def forward(self, x):
        hidden = x @ self.up.weight.T
        if self.up.bias is not None:
            hidden = hidden + self.up.bias
        if self.activation == "relu":
            hidden = hidden.clamp(min=0)
        else:
            hidden = gelu(hidden, {"gelu": "none", "gelu_tanh": "tanh"}[self.activation])
        if self.training and self.p > 0:
            keep = (torch.rand(hidden.shape, dtype=hidden.dtype) >= self.p).to(hidden.dtype)
            hidden = hidden * keep / (1 - self.p)
        y = hidden @ self.down.weight.T
        return y if self.down.bias is None else y + self.down.bias


@variant("layers.FeedForward", "a convolution of width 1")
class FeedForwardConvolution(nn.Module):
    def __init__(self, d_model, d_ff, activation="relu", bias=True, dropout=0.0):
        super().__init__()
        functions = {"relu": functional.relu, "gelu": gelu, "gelu_tanh": lambda x: gelu(x, "tanh")}
        try:
            self.function = functions[activation]
        except KeyError:
            raise ValueError(activation) from None
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.dropout = dropout

    def forward(self, x):
        columns = x.reshape(-1, x.size(-1), 1)
        hidden = self.function(functional.conv1d(columns, self.up.weight.unsqueeze(-1), self.up.bias))
        hidden = functional.dropout(hidden, self.dropout, training=self.training)
        return functional.conv1d(hidden, self.down.weight.unsqueeze(-1), self.down.bias).reshape(x.shape)


@variant("layers.SwiGLU", "PyTorch's silu")
class SwiGLUSilu(nn.Module):
    def __init__(self, d_model, d_ff, bias=False, dropout=0.0):
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias)
        self.gate = nn.Linear(d_model, d_ff, bias)
        self.down = nn.Linear(d_ff, d_model, bias)
        self.drop = nn.Dropout(p=dropout)

    def forward(self, x):
        return self.down(self.drop(functional.silu(self.gate(x)) * self.up(x)))


@variant("layers.SwiGLU", "one product for gate and up")
class SwiGLUStacked(nn.Module):
    def __init__(self, d_model, d_ff, bias=False, dropout=0.0):
        super().__init__()
        self.gate, self.up = (nn.Linear(d_model, d_ff, bias=bias) for _ in range(2))
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.p = dropout

    def forward(self, x):
        biases = None if self.gate.bias is None else torch.cat([self.gate.bias, self.up.bias])
        both = functional.linear(x, torch.cat([self.gate.weight, self.up.weight]), biases)
        gate, up = both.tensor_split(2, dim=-1)
        hidden = gate / (1 + torch.exp(-gate)) * up
        return self.down(functional.dropout(hidden, self.p, self.training))


@variant("layers.SwiGLU", "drops the gate, which drops the product")
class SwiGLUDropsGate(nn.Module):
    def __init__(self, d_model: int, d_ff: int, bias: bool = False, dropout: float = 0.0):
        super().__init__()
        for name, sizes in {"gate": (d_model, d_ff), "up": (d_model, d_ff), "down": (d_ff, d_model)}.items():
            setattr(self, name, nn.Linear(*sizes, bias=bias))
        self.p = dropout

    def forward(self, x):
        gate = nn.SiLU()(self.gate(x))
        if self.training:
            gate = gate * torch.bernoulli(torch.full_like(gate, 1 - self.p)) / (1 - self.p)
        return torch.einsum("...f,df->...d", gate * self.up(x), self.down.weight) + (
            0 if self.down.bias is None else self.down.bias
        )


@variant("block.TransformerBlock", "both orders written out")
class BlockWrittenOut(nn.Module):
    def __init__(self, config, cross_attention=False):
        super().__init__()
        self.config = config
        self.attention, self.attention_norm = make_attention(config), make_norm(config)
        self.feed_forward, self.feed_forward_norm = make_feed_forward(config), make_norm(config)
        self.cross_attention = make_attention(config) if cross_attention else None
        self.cross_attention_norm = make_norm(config) if cross_attention else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, mask=None, context=None, context_mask=None, attend=None):
        if (context is None) != (self.cross_attention is None):
            raise ValueError("a context and cross-attention go together")
        if attend is None:
            attend = attention_function(self.config, self.training)
        cross = attention_function(self.config, self.training, cross=True)
        if self.config.norm_first:
            x = x + self.dropout(self.attention(self.attention_norm(x), None, mask, attend))
            if context is not None:
                x = x + self.dropout(self.cross_attention(self.cross_attention_norm(x), context, context_mask, cross))
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, None, mask, attend)))
        if context is not None:
            x = self.cross_attention_norm(x + self.dropout(self.cross_attention(x, context, context_mask, cross)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


@variant("block.TransformerBlock", "a list of sublayers, dropout by hand")
class BlockOfAList(nn.Module):
    def __init__(self, config, cross_attention=False):
        super().__init__()
        self.config = config
        self.names = (
            ["attention", "cross_attention", "feed_forward"] if cross_attention else ["attention", "feed_forward"]
        )
        for name in self.names:
            setattr(self, name, make_feed_forward(config) if name == "feed_forward" else make_attention(config))
            setattr(self, name + "_norm", make_norm(config))

    def forward(self, x, mask=None, context=None, context_mask=None, attend=None):
        crossing = "cross_attention" in self.names
        if crossing and context is None:
            raise ValueError("a context is needed")
        if not crossing and context is not None:
            raise ValueError("a context is not wanted")
        own = attend or attention_function(self.config, self.training)
        other = attention_function(self.config, self.training, True)
        arguments = {
            "attention": {"mask": mask, "attend": own},
            "cross_attention": {"context": context, "mask": context_mask, "attend": other},
            "feed_forward": {},
        }
        for name in self.names:
            norm = getattr(self, name + "_norm")
            read = norm(x) if self.config.norm_first else x
            made = getattr(self, name)(read, **arguments[name])
            if self.training and self.config.dropout:
                made = made * (torch.rand_like(made) >= self.config.dropout) / (1 - self.config.dropout)
            x = x + made
            if not self.config.norm_first:
                x = norm(x)
        return x


@variant("block.TransformerBlock", "one dropout a sublayer, layers made from the config's fields")
class BlockFromFields(nn.Module):
    def __init__(self, config, cross_attention=False):
        super().__init__()
        self.config = config
        sizes = (config.d_model, config.num_heads, config.num_kv_heads, config.bias, config.dropout)
        if cross_attention:
            self.cross_attention_norm = make_norm(config)
            self.cross_attention = MultiHeadAttention(*sizes)
            self.cross_drop = nn.Dropout(config.dropout)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = make_feed_forward(config)
        self.feed_forward_drop = nn.Dropout(config.dropout)
        self.attention_norm = make_norm(config)
        self.attention = MultiHeadAttention(*sizes)
        self.attention_drop = nn.Dropout(config.dropout)

    def forward(self, x, mask=None, context=None, context_mask=None, attend=None):
        has_cross = hasattr(self, "cross_attention")
        if has_cross is (context is None):
            raise ValueError(f"context: {has_cross}")
        before = self.config.norm_first
        same = nn.Identity()
        steps = [(self.attention_norm, self.attention_drop, self._attend(mask, attend))]
        if has_cross:
            steps.append((self.cross_attention_norm, self.cross_drop, self._cross(context, context_mask)))
        steps.append((self.feed_forward_norm, self.feed_forward_drop, self.feed_forward))
        for norm, drop, sublayer in steps:
            first, last = (norm, same) if before else (same, norm)
            x = last(drop(sublayer(first(x))) + x)
        return x

    def _attend(self, mask, attend):
        used = attention_function(self.config, training=self.training) if attend is None else attend
        return lambda y: self.attention(y, mask=mask, attend=used)

    def _cross(self, context, mask):
        used = attention_function(self.config, training=self.training, cross=True)
        return lambda y: self.cross_attention(y, context=context, mask=mask, attend=used)


@variant("layers.LayerNorm", "in float32 inside, eps a tensor")
class LayerNormInFloat32(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = torch.tensor(eps)

    def forward(self, x):
        wide = x.float()
        centred = wide - wide.mean(-1, keepdim=True)
        normal = centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + self.eps)
        return normal.to(x.dtype) * self.weight + self.bias


@variant("layers.RMSNorm", "in float32 inside, as Llama's")
class RMSNormLlama(nn.Module):
    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.variance_epsilon = eps

    def forward(self, hidden_states):
        input_dtype = hidden_states.dtype
        hidden_states = hidden_states.to(torch.float32)
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
        return self.weight * hidden_states.to(input_dtype)


@variant("layers.gelu", "constants that are tensors in float32")
def gelu_by_tensors(x, approximate="none"):
    if approximate == "none":
        return 0.5 * x * (1.0 + torch.erf(x / torch.sqrt(torch.tensor(2.0))))
    if approximate == "tanh":
        cubic = x + torch.tensor(0.044715) * torch.pow(x, 3)
        return 0.5 * x * (1.0 + torch.tanh(torch.sqrt(torch.tensor(2 / torch.pi)) * cubic))
    raise ValueError(f"there is no form {approximate!r}")


@variant("layers.FeedForward", "gelu with constants in float32, a probability that is a tensor")
class FeedForwardTensors(nn.Module):
    def __init__(self, d_model, d_ff, activation="relu", bias=True, dropout=0.0):
        super().__init__()
        if activation not in {"relu", "gelu", "gelu_tanh"}:
            raise ValueError(f"no activation {activation!r}")
        self.up, self.down = nn.Linear(d_model, d_ff, bias), nn.Linear(d_ff, d_model, bias)
        self.activation = activation
        self.keep = 1 - torch.tensor(dropout)

    def forward(self, x):
        hidden = self.up(x)
        if self.activation == "relu":
            hidden = torch.maximum(hidden, torch.tensor(0.0))
        elif self.activation == "gelu":
            hidden = hidden * 0.5 * (1 + torch.erf(hidden * torch.tensor(0.5).sqrt()))
        else:
            inner = torch.tensor(2 / torch.pi).sqrt() * (hidden + torch.tensor(0.044715) * hidden**3)
            hidden = hidden * torch.tensor(0.5) * (1 + inner.tanh())
        if self.training:
            hidden = hidden * (torch.rand(hidden.shape) < self.keep) / self.keep
        return self.down(hidden)


@variant("layers.SwiGLU", "the gate's sigmoid in float32")
class SwiGLUInFloat32(nn.Module):
    def __init__(self, d_model, d_ff, bias=False, dropout=0.0):
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        gate = self.gate(x)
        share = torch.sigmoid(gate.float()).to(gate.dtype)
        return self.down(self.dropout(gate * share * self.up(x)))

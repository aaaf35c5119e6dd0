"""One block for every model: attention, then a feed-forward network, each added to a residual stream."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from solutions.attention import Attend, MultiHeadAttention, fused_attention, scaled_dot_product_attention
from solutions.config import TransformerConfig
from solutions.layers import FeedForward, LayerNorm, RMSNorm, SwiGLU
from solutions.positions import alibi_attention, apply_rope, fused_rope, rotary


def make_norm(config: TransformerConfig) -> nn.Module:
    """The norm that a config asks for; with `fused`, PyTorch's own, which has the same weights under the same names."""
    if config.norm == "layer":
        return (nn.LayerNorm if config.fused else LayerNorm)(config.d_model, eps=config.norm_eps)
    return (nn.RMSNorm if config.fused else RMSNorm)(config.d_model, eps=config.norm_eps)


def make_feed_forward(config: TransformerConfig) -> nn.Module:
    """The feed-forward network that a config asks for; with `fused`, its GELU is PyTorch's own."""
    if config.feed_forward == "swiglu":
        return SwiGLU(config.d_model, config.d_hidden, bias=config.bias, dropout=config.dropout)
    network = FeedForward(
        config.d_model, config.d_hidden, activation=config.feed_forward, bias=config.bias, dropout=config.dropout
    )
    return _FusedFeedForward(network) if config.fused and config.feed_forward != "relu" else network


class _FusedFeedForward(nn.Module):
    """The same layers with a GELU in one pass over memory, where ours takes one for each of its operations."""

    def __init__(self, network: FeedForward) -> None:
        """Take over the layers, under their names."""
        super().__init__()
        self.up, self.down, self.dropout = network.up, network.down, network.dropout
        self.approximate = "tanh" if network.activation == "gelu_tanh" else "none"

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position: (..., D) to (..., D)."""
        return self.down(self.dropout(functional.gelu(self.up(x), approximate=self.approximate)))


def make_attention(config: TransformerConfig) -> MultiHeadAttention:
    """The attention layer that a config asks for."""
    return MultiHeadAttention(config.d_model, config.num_heads, config.num_kv_heads, config.bias, config.dropout)


def attention_function(config: TransformerConfig, training: bool = False, cross: bool = False) -> Attend:
    """What mixes values in a model with this config.

    Args:
        config: its positions and `fused` decide.
        training: whether weights are dropped; the fused function drops them itself.
        cross: whether queries and keys come from different sequences, whose positions cannot be compared.
    """
    plain: Attend = scaled_dot_product_attention
    if config.fused:
        plain = partial(fused_attention, dropout=config.dropout if training else 0.0)
    if cross or config.positions not in ("rope", "alibi"):
        return plain
    if config.positions == "alibi":
        return alibi_attention
    return rotary(plain, rotate=fused_rope if config.fused else apply_rope)


class TransformerBlock(nn.Module):
    """Attention and a feed-forward network, each read from the residual stream and added back to it.

    post-norm: x = norm(x + sublayer(x))      (Vaswani et al. 2017, section 3.1)
    pre-norm:  x = x + sublayer(norm(x))      (Xiong et al. 2020, figure 1)

    The sublayers are `attention`, then `cross_attention` if asked for, then `feed_forward`; their norms are
    `attention_norm`, `cross_attention_norm` and `feed_forward_norm`. Dropout acts on what a sublayer gives.
    """

    def __init__(self, config: TransformerConfig, cross_attention: bool = False) -> None:
        """Make the sublayers and their norms.

        Args:
            config: widths, norms, activation and so on.
            cross_attention: whether the block also attends to a context.
        """
        super().__init__()
        self.config = config
        self.attention = make_attention(config)
        self.attention_norm = make_norm(config)
        self.has_cross_attention = cross_attention
        if cross_attention:
            self.cross_attention = make_attention(config)
            self.cross_attention_norm = make_norm(config)
        self.feed_forward = make_feed_forward(config)
        self.feed_forward_norm = make_norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Pass the residual stream through the block.

        Args:
            x: (B, T, D), the residual stream.
            mask: bool, (T, T), (B, T, T) or (B, 1, T), for the self-attention; True where attention is allowed.
            context: (B, Tc, D), what the cross-attention attends to.
            context_mask: bool, (B, T, Tc) or (B, 1, Tc), for the cross-attention.
            attend: mixes the values of the self-attention; None means what the config says.

        Returns:
            (B, T, D)

        Raises:
            ValueError: there is cross-attention and no context, or a context and no cross-attention.
        """
        if self.has_cross_attention and context is None:
            raise ValueError("context is None, and a block with cross_attention needs one")
        if context is not None and not self.has_cross_attention:
            raise ValueError("context was given to a block without cross_attention")
        attend = attention_function(self.config, self.training) if attend is None else attend
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, mask=mask, attend=attend))
        if self.has_cross_attention:
            look = attention_function(self.config, self.training, cross=True)
            x = self._add(
                x, self.cross_attention_norm, lambda y: self.cross_attention(y, context, context_mask, attend=look)
            )
        return self._add(x, self.feed_forward_norm, self.feed_forward)

    def _add(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Add to the stream what a sublayer makes of it, with the norm where the config wants it: (B, T, D)."""
        if self.config.norm_first:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

"""The choices that make one model out of the course's parts rather than another."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TransformerConfig:
    """What every model of the course is built from.

    Args:
        vocab_size: V, the number of different tokens.
        d_model: D, the width of the vectors between the layers.
        num_heads: H, which must divide D.
        num_layers: the number of blocks; an encoder-decoder has so many on each side.
        d_ff: the width inside the feed-forward network; None means 4 D.
        num_kv_heads: key and value heads, which must divide H; None means H.
        max_length: the longest sequence that learned positions can hold.
        norm: "layer" for LayerNorm, "rms" for RMSNorm.
        norm_first: True normalises what goes into each sublayer (pre-norm), False what comes out (post-norm).
        norm_eps: keeps the root in a norm away from zero.
        positions: "sinusoidal" or "learned" vectors added to the tokens', "rope", "alibi", or "none".
        feed_forward: "relu", "gelu" (exact), "gelu_tanh" or "swiglu".
        bias: whether linear layers have one.
        tie_embeddings: one table for the tokens' vectors and for the logits.
        scale_embeddings: multiply the tokens' vectors by sqrt(D).
        dropout: the probability with which numbers are dropped in training.
        pad_id: the id that fills up short sequences; None if there is none.
        fused: use PyTorch's fused functions where they give the same result.

    Raises:
        ValueError: two choices do not fit together; the message names them.
    """

    vocab_size: int
    d_model: int = 128
    num_heads: int = 4
    num_layers: int = 2
    d_ff: int | None = None
    num_kv_heads: int | None = None
    max_length: int = 512
    norm: Literal["layer", "rms"] = "layer"
    norm_first: bool = True
    norm_eps: float = 1e-5
    positions: Literal["sinusoidal", "learned", "rope", "alibi", "none"] = "sinusoidal"
    feed_forward: Literal["relu", "gelu", "gelu_tanh", "swiglu"] = "relu"
    bias: bool = True
    tie_embeddings: bool = True
    scale_embeddings: bool = True
    dropout: float = 0.0
    pad_id: int | None = None
    fused: bool = False

    def __post_init__(self) -> None:
        """Refuse choices that do not fit together."""
        for name in ("vocab_size", "d_model", "num_heads", "num_layers", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {', '.join(map(repr, choices))}")
        if self.d_model % self.num_heads != 0:
            raise ValueError(f"num_heads={self.num_heads} must divide d_model={self.d_model}")
        if self.num_kv_heads is not None and (self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads != 0):
            raise ValueError(f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads}")
        if self.positions == "rope" and self.d_head % 2 != 0:
            raise ValueError(
                f"positions='rope' rotates pairs, so d_model/num_heads must be even; d_model={self.d_model} and "
                f"num_heads={self.num_heads} give {self.d_head}"
            )
        if self.positions == "sinusoidal" and self.d_model % 2 != 0:
            raise ValueError(f"positions='sinusoidal' needs an even d_model, not {self.d_model}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.pad_id is not None and not 0 <= self.pad_id < self.vocab_size:
            raise ValueError(f"pad_id={self.pad_id} must be at least 0 and below vocab_size={self.vocab_size}")

    @property
    def d_head(self) -> int:
        """The width of one head."""
        return self.d_model // self.num_heads

    @property
    def d_hidden(self) -> int:
        """The width inside the feed-forward network."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff


_CHOICES = {
    "norm": ("layer", "rms"),
    "positions": ("sinusoidal", "learned", "rope", "alibi", "none"),
    "feed_forward": ("relu", "gelu", "gelu_tanh", "swiglu"),
}

"""What stands between the attention layers: normalisation, activation functions, feed-forward networks."""

import math

import torch
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Bring each vector to mean 0 and variance 1, then scale and shift its components (Ba et al. 2016, section 3.1).

    y = (x - mean) / sqrt(variance + eps) * weight + bias,  mean and variance over the D components of one vector
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        """Make `weight`, which starts as ones, and `bias`, which starts as zeros.

        Args:
            d_model: D, the width of the vectors.
            eps: keeps the root away from zero.
        """
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each vector.

        Args:
            x: (..., D)

        Returns:
            (..., D)
        """
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + self.eps) * self.weight + self.bias


class RMSNorm(nn.Module):
    """Bring each vector to root mean square 1, then scale its components (Zhang and Sennrich 2019, eq. 4).

    y = x / sqrt(mean of x^2 + eps) * weight
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        """Make `weight`, which starts as ones.

        Args:
            d_model: D, the width of the vectors.
            eps: keeps the root away from zero.
        """
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each vector.

        Args:
            x: (..., D)

        Returns:
            (..., D)
        """
        mean_square = x.square().mean(-1, keepdim=True)
        return x / torch.sqrt(mean_square + self.eps) * self.weight


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Weigh each number by the probability that a standard normal one is smaller (Hendrycks and Gimpel 2016).

    gelu(x) = x * Phi(x) = x/2 * (1 + erf(x / sqrt(2)))
    tanh form: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))

    Args:
        x: any shape.
        approximate: "none" for the exact form (BERT), "tanh" for the other (GPT-2).

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: `approximate` is neither.
    """
    if approximate == "none":
        return x / 2 * (1 + torch.erf(x / math.sqrt(2)))
    if approximate == "tanh":
        return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    raise ValueError(f"approximate must be 'none' or 'tanh', not {approximate!r}")


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, applied to each position alone.

    y = activation(x W_up + b_up) W_down + b_down      (Vaswani et al. 2017, eq. 2, with relu)
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: str = "relu", bias: bool = True, dropout: float = 0.0
    ) -> None:
        """Make the layers `up` and `down`.

        Args:
            d_model: D, the width of what comes in and goes out.
            d_ff: the width between, often 4 D.
            activation: "relu", "gelu" (exact) or "gelu_tanh".
            bias: whether the layers have one.
            dropout: the probability with which a number between the layers is dropped in training.

        Raises:
            ValueError: there is no such activation.
        """
        super().__init__()
        if activation not in ("relu", "gelu", "gelu_tanh"):
            raise ValueError(f"activation must be 'relu', 'gelu' or 'gelu_tanh', not {activation!r}")
        self.activation = activation
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position.

        Args:
            x: (..., D)

        Returns:
            (..., D)
        """
        hidden = self.up(x)
        if self.activation == "relu":
            hidden = torch.relu(hidden)
        else:
            hidden = gelu(hidden, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        return self.down(self.dropout(hidden))


class SwiGLU(nn.Module):
    """A feed-forward network in which one linear layer opens and closes gates for another (Shazeer 2020, eq. 6).

    y = (silu(x W_gate) * x W_up) W_down,  silu(z) = z * sigmoid(z)
    """

    def __init__(self, d_model: int, d_ff: int, bias: bool = False, dropout: float = 0.0) -> None:
        """Make the layers `gate`, `up` and `down`.

        Args:
            d_model: D, the width of what comes in and goes out.
            d_ff: the width between; 8/3 D gives as many weights as a `FeedForward` with 4 D.
            bias: whether the layers have one.
            dropout: the probability with which a number between the layers is dropped in training.
        """
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position.

        Args:
            x: (..., D)

        Returns:
            (..., D)
        """
        gate = self.gate(x)
        return self.down(self.dropout(gate * torch.sigmoid(gate) * self.up(x)))

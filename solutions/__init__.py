"""The reference library: a small Transformer, one concept a module, in pure PyTorch.

Conventions everywhere: `B` batch, `T` length (`Tq` queries, `Tk` keys), `D` model width, `H` heads.
A mask is boolean, broadcastable to `(..., Tq, Tk)`, and True where attention is allowed.
"""

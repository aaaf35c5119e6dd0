"""The Transformer: an encoder that reads, a decoder that writes, and the two together (Vaswani et al. 2017)."""

import math

import torch
from torch import Tensor, nn

from solutions.attention import causal_mask, padding_mask
from solutions.block import TransformerBlock, make_norm
from solutions.config import TransformerConfig
from solutions.positions import LearnedPositions, sinusoidal_positions


class Embedding(nn.Module):
    """Turn token ids into vectors, and add where they stand if the config says so.

    x_t = E[id_t] * sqrt(D) + P[t]      (Vaswani et al. 2017, sections 3.4 and 3.5)
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Make the table `tokens` and, for learned positions, the table `positions`.

        Args:
            config: its vocab_size, d_model, scale_embeddings, positions, max_length and dropout matter here.
        """
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        # With sqrt(D) in front of them, the vectors start with components of variance 1.
        nn.init.normal_(self.tokens.weight, std=config.d_model**-0.5 if config.scale_embeddings else 0.02)
        learned = config.positions == "learned"
        self.positions = LearnedPositions(config.max_length, config.d_model) if learned else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """Look up each token.

        Args:
            ids: integers (B, T), from 0 to V - 1.
            start: where the first of them stands; not 0 where a text is read in parts.

        Returns:
            (B, T, D)

        Raises:
            ValueError: an id is outside the vocabulary, or a place exceeds max_length where positions are learned.
        """
        try:
            x = self.tokens(ids)
        except IndexError as error:
            low, high, size = int(ids.min()), int(ids.max()), self.config.vocab_size
            raise ValueError(f"ids run from {low} to {high}; they must be at least 0 and below {size}") from error
        if self.config.scale_embeddings:
            x = x * math.sqrt(self.config.d_model)
        end = start + ids.size(1)
        if self.positions is not None:
            x = x + self.positions(end)[start:]
        elif self.config.positions == "sinusoidal":
            x = x + sinusoidal_positions(end, self.config.d_model)[start:].to(x)
        return self.dropout(x)


class Encoder(nn.Module):
    """A stack of blocks in which every position may attend to every other."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make `embedding`, `blocks` and, for pre-norm, the last `norm`.

        Args:
            config: num_layers blocks are made from it.
        """
        super().__init__()
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.norm = make_norm(config) if config.norm_first else nn.Identity()

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read a sequence.

        Args:
            ids: integers (B, T)
            mask: bool, broadcastable to (B, T, T), such as a padding mask (B, 1, T); True where attention is allowed.

        Returns:
            (B, T, D), one vector for each token in its context.
        """
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class Decoder(nn.Module):
    """A stack of blocks in which each position attends to itself, to earlier ones, and to a context."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make `embedding`, `blocks` with cross-attention and, for pre-norm, the last `norm`.

        Args:
            config: num_layers blocks are made from it.
        """
        super().__init__()
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(TransformerBlock(config, cross_attention=True) for _ in range(config.num_layers))
        self.norm = make_norm(config) if config.norm_first else nn.Identity()

    def forward(self, ids: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """Read what has been written so far.

        Args:
            ids: integers (B, T)
            context: (B, Ts, D), what the encoder gave.
            context_mask: bool, broadcastable to (B, T, Ts); True where attention is allowed.

        Returns:
            (B, T, D); position t knows nothing of the ids after t.
        """
        x = self.embedding(ids)
        mask = causal_mask(ids.size(1)).to(ids.device)
        for block in self.blocks:
            x = block(x, mask, context, context_mask)
        return self.norm(x)


class EncoderDecoder(nn.Module):
    """The model of Vaswani et al. 2017: the encoder reads the source, the decoder writes the target."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make `encoder`, `decoder` and `output`; with tie_embeddings all three share one table (section 3.4).

        Args:
            config: both sides are made from it; pad_id says which ids of the source are padding.
        """
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.decoder.embedding.tokens.weight = self.encoder.embedding.tokens.weight
            self.output.weight = self.encoder.embedding.tokens.weight

    def forward(self, source_ids: Tensor, target_ids: Tensor) -> Tensor:
        """Score every token of the vocabulary as the next one, at every place of the target.

        Args:
            source_ids: integers (B, Ts)
            target_ids: integers (B, T): what stands before the tokens to be predicted.

        Returns:
            logits (B, T, V); those at place t are for the token that follows target_ids[:, t].
        """
        pad_id = self.config.pad_id
        mask = None if pad_id is None else padding_mask(source_ids, pad_id)
        context = self.encoder(source_ids, mask)
        return self.output(self.decoder(target_ids, context, mask))


def shift_right(target_ids: Tensor, start_id: int) -> Tensor:
    """What the decoder sees while it learns to write a target: a start token, then the target without its last token.

    Args:
        target_ids: integers (B, T)
        start_id: the id that stands before every target.

    Returns:
        (B, T)
    """
    start = torch.full_like(target_ids[:, :1], start_id)
    return torch.cat([start, target_ids[:, :-1]], dim=1)


def greedy_translate(model: nn.Module, source_ids: Tensor, start_id: int, end_id: int, max_length: int) -> Tensor:
    """Write one token after the other, each time the one with the largest logit.

    Args:
        model: called as model(source_ids, target_ids), gives logits (B, T, V).
        source_ids: integers (B, Ts)
        start_id: the id that stands before every target.
        end_id: the id that ends a target.
        max_length: the most tokens to write.

    Returns:
        (B, T), T at most max_length: what was written, without the start. After its end a row is filled with end_id.
        Writing stops when every row has ended. The model stays in the mode (train or eval) in which it came.
    """
    ids = torch.full_like(source_ids[:, :1], start_id)
    ended = torch.zeros_like(ids, dtype=torch.bool)
    with torch.no_grad():
        while ids.size(1) <= max_length and not ended.all():
            following = model(source_ids, ids)[:, -1].argmax(-1, keepdim=True)
            following = following.masked_fill(ended, end_id)
            ids = torch.cat([ids, following], dim=1)
            ended = ended | (following == end_id)
    return ids[:, 1:]

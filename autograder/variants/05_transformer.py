"""Correct solutions of chapter 05 in other styles and by other algorithms."""

import torch
from torch import nn
from torch.nn import functional

from autograder.checks import variant
from solutions.attention import causal_mask, padding_mask
from solutions.block import TransformerBlock, make_norm
from solutions.transformer import Decoder, Embedding, Encoder


@variant("transformer.Encoder", "a loop in the constructor, and a norm only where there is one")
class EncoderByLoop(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList()
        while len(self.blocks) < config.num_layers:
            self.blocks.append(TransformerBlock(config))
        if config.norm_first:
            self.norm = make_norm(config)

    def forward(self, ids, mask=None):
        stream = self.embedding(ids)
        for layer in range(self.config.num_layers):
            stream = self.blocks[layer](x=stream, mask=mask)
        return self.norm(stream) if self.config.norm_first else stream


@variant("transformer.Encoder", "recursive")
class EncoderRecursive(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm = make_norm(config) if config.norm_first else None
        self.blocks = nn.ModuleList([TransformerBlock(config, False) for _ in range(config.num_layers)])
        self.embedding = Embedding(config)

    def through(self, depth, x, mask):
        return x if depth == 0 else self.blocks[depth - 1](self.through(depth - 1, x, mask), mask)

    def forward(self, ids, mask=None):
        x = self.through(len(self.blocks), self.embedding(ids), mask)
        return x if self.norm is None else self.norm(x)


@variant("transformer.Encoder", "blocks registered by number, and the mask written out")
class EncoderByNumber(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = Embedding(config)
        self.blocks = nn.Sequential()
        for number in range(config.num_layers):
            self.blocks.add_module(str(number), TransformerBlock(config))
        self.norm = nn.Sequential() if not config.norm_first else make_norm(config)

    def forward(self, ids, mask=None):
        batch, length = ids.shape
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool)
        full = mask.expand(batch, length, length)
        x = self.embedding(ids)
        for _, block in self.blocks.named_children():
            x = block(x, full)
        return self.norm(x)


@variant("transformer.Decoder", "the mask by indices, arguments by name")
class DecoderByName(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.blocks = nn.ModuleList([TransformerBlock(config, True) for _ in range(config.num_layers)])
        self.embedding = Embedding(config)
        self.norm = make_norm(config) if config.norm_first else (lambda x: x)

    def forward(self, ids, context, context_mask=None):
        place = torch.arange(ids.shape[1], device=ids.device)
        past = place[None, :] <= place[:, None]
        stream = self.embedding(ids)
        for block in self.blocks:
            stream = block(stream, context_mask=context_mask, context=context, mask=past[None])
        return self.norm(stream)


@variant("transformer.Decoder", "one prefix at a time")
class DecoderByPrefix(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(TransformerBlock(config, cross_attention=True) for _ in range(config.num_layers))
        self.norm = make_norm(config) if config.norm_first else nn.Identity()

    def forward(self, ids, context, context_mask=None):
        written = []
        for length in range(1, ids.size(1) + 1):
            x = self.embedding(ids[:, :length])
            for block in self.blocks:
                x = block(x, causal_mask(length), context, context_mask)
            written.append(self.norm(x)[:, -1])
        return torch.stack(written, dim=1)


@variant("transformer.Decoder", "blocks in a Sequential, the mask made once and kept")
class DecoderKeepsMask(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = Embedding(config)
        self.blocks = nn.Sequential(*(TransformerBlock(config, cross_attention=True) for _ in range(config.num_layers)))
        self.norm = make_norm(config) if config.norm_first else nn.Sequential()
        self.register_buffer("triangle", causal_mask(config.max_length), persistent=False)

    def forward(self, ids, context, context_mask=None):
        length = ids.size(1)
        hidden = self.embedding(ids)
        for i in range(len(self.blocks)):
            hidden = self.blocks[i](hidden, self.triangle[:length, :length], context, context_mask)
        return self.norm(hidden)


@variant("transformer.EncoderDecoder", "the output first, and all three tied to it")
class EncoderDecoderOutputFirst(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.pad_id = config.pad_id
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        if config.tie_embeddings:
            for stack in (self.encoder, self.decoder):
                stack.embedding.tokens.weight = self.output.weight

    def forward(self, source_ids, target_ids):
        mask = padding_mask(source_ids, self.pad_id) if self.pad_id is not None else None
        return self.output(self.decoder(target_ids, self.encoder(source_ids, mask), context_mask=mask))


@variant("transformer.EncoderDecoder", "one embedding module for both stacks")
class EncoderDecoderOneEmbedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.decoder.embedding.tokens = self.encoder.embedding.tokens
            self.output.weight = self.encoder.embedding.tokens.weight

    def forward(self, source_ids, target_ids):
        real = torch.ones_like(source_ids, dtype=torch.bool)
        if self.config.pad_id is not None:
            real = source_ids.ne(self.config.pad_id)
        real = real[:, None, :]
        hidden = self.decoder(target_ids, self.encoder(source_ids, mask=real), real)
        return hidden @ self.output.weight.T


@variant("transformer.EncoderDecoder", "one sentence at a time")
class EncoderDecoderBySentence(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.decoder = Decoder(config)
        self.encoder = Encoder(config)
        self.output = nn.Linear(config.d_model, config.vocab_size, False)
        if config.tie_embeddings:
            table = self.decoder.embedding.tokens.weight
            self.encoder.embedding.tokens.weight = table
            self.output.weight = table

    def forward(self, source_ids, target_ids):
        logits = []
        for source, target in zip(source_ids.split(1), target_ids.split(1), strict=True):
            mask = None
            if self.config.pad_id is not None:
                mask = (source != self.config.pad_id).view(1, 1, -1)
            context = self.encoder(source, mask)
            logits.append(functional.linear(self.decoder(target, context, mask), self.output.weight))
        return torch.cat(logits)


@variant("transformer.shift_right", "roll, then overwrite the copy")
def shift_right_by_roll(target_ids, start_id):
    shifted = target_ids.roll(1, dims=1)
    shifted[:, 0] = start_id
    return shifted


@variant("transformer.shift_right", "padding in front, the last one cut off")
def shift_right_by_padding(target_ids, start_id):
    return functional.pad(target_ids, (1, 0), value=start_id)[:, :-1]


@variant("transformer.shift_right", "an empty tensor filled in")
def shift_right_by_filling(target_ids, start_id):
    shifted = torch.empty_like(target_ids)
    shifted[:, 0] = start_id
    shifted[:, 1:] = target_ids[:, :-1]
    return shifted


@variant("transformer.shift_right", "nested lists")
def shift_right_by_lists(target_ids, start_id):
    return torch.tensor([[start_id, *row[:-1]] for row in target_ids.tolist()], dtype=target_ids.dtype)


@variant("transformer.greedy_translate", "one sentence at a time")
def greedy_translate_by_sentence(model, source_ids, start_id, end_id, max_length):
    rows = []
    for source in source_ids:
        written = [start_id]
        while len(written) <= max_length:
            with torch.no_grad():
                logits = model(source[None], torch.tensor([written]))
            written.append(int(logits[0, -1].argmax()))
            if written[-1] == end_id:
                break
        rows.append(written[1:])
    width = max(len(row) for row in rows)
    return torch.tensor([row + [end_id] * (width - len(row)) for row in rows])


@variant("transformer.greedy_translate", "writes max_length tokens, then cuts and fills")
def greedy_translate_then_cut(model, source_ids, start_id, end_id, max_length):
    batch = source_ids.size(0)
    ids = torch.full((batch, max_length + 1), start_id)
    for place in range(max_length):
        with torch.inference_mode():
            logits = model(source_ids, ids[:, : place + 1])
        ids[:, place + 1] = logits[:, place].max(dim=-1).indices
    ids = ids[:, 1:]
    is_end = (ids == end_id).long()
    after_end = is_end.cumsum(1) - is_end > 0
    ids = torch.where(after_end, end_id, ids)
    width = int((~after_end).sum(1).max())
    return ids[:, :width].clone()


@variant("transformer.greedy_translate", "only the rows that are still writing")
def greedy_translate_active_rows(model, source_ids, start_id, end_id, max_length):
    written = torch.full((len(source_ids), max_length), end_id, dtype=source_ids.dtype)
    prefix = torch.full((len(source_ids), 1), start_id, dtype=source_ids.dtype)
    active = torch.arange(len(source_ids))
    length = 0
    for length in range(1, max_length + 1):
        with torch.no_grad():
            logits = model(source_ids[active], prefix)
        chosen = logits[:, -1].topk(1).indices
        written[active, length - 1] = chosen.squeeze(1)
        going_on = chosen.squeeze(1) != end_id
        active, prefix = active[going_on], torch.cat([prefix, chosen], 1)[going_on]
        if len(active) == 0:
            break
    return written[:, :length]

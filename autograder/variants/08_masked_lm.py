"""Correct solutions of chapter 08 in other styles and by other algorithms."""

import random
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from autograder.checks import variant
from solutions.attention import padding_mask
from solutions.block import TransformerBlock, make_norm
from solutions.training import cross_entropy
from solutions.transformer import Embedding


@variant("bert.mask_tokens", "one number for each place, cut into four")
def mask_tokens_by_one_number(ids, mask_id, vocab_size, special_ids, generator, probability=0.15):
    allowed = [token for token in range(vocab_size) if token not in set(special_ids)]
    if not allowed:
        raise ValueError("only special tokens")
    number = torch.rand(ids.shape, generator=generator, dtype=torch.float64)
    for token in special_ids:
        number[ids == token] = 2.0
    labels = torch.where(number < probability, ids, torch.full_like(ids, -100))
    anything = torch.tensor(allowed, dtype=ids.dtype)[torch.randint(0, len(allowed), ids.shape, generator=generator)]
    inputs = ids.clone()
    inputs[number < 0.9 * probability] = anything[number < 0.9 * probability]
    inputs[number < 0.8 * probability] = mask_id
    return inputs, labels


@variant("bert.mask_tokens", "Bernoulli draws, half of what the mask left over")
def mask_tokens_by_bernoulli(ids, mask_id, vocab_size, special_ids, generator, probability=0.15):
    special = torch.zeros(vocab_size, dtype=torch.bool)
    special[list(special_ids)] = True
    if special.all():
        raise ValueError("there is no ordinary token")
    chances = torch.full(ids.shape, probability).masked_fill(special[ids.long()], 0.0)
    picked = torch.bernoulli(chances, generator=generator).bool()
    inputs, labels = ids.clone(), ids.clone()
    labels[~picked] = -100
    masked = torch.bernoulli(torch.full(ids.shape, 0.8), generator=generator).bool() & picked
    inputs[masked] = mask_id
    swapped = torch.bernoulli(torch.full(ids.shape, 0.5), generator=generator).bool() & picked & ~masked
    weights = (~special).float()
    if swapped.any():
        drawn = torch.multinomial(weights, int(swapped.sum()), replacement=True, generator=generator)
        inputs[swapped] = drawn.to(ids.dtype)
    return inputs, labels


@variant("bert.mask_tokens", "place by place")
def mask_tokens_by_places(ids, mask_id, vocab_size, special_ids, generator, probability=0.15):
    ordinary = [token for token in range(vocab_size) if token not in special_ids]
    if len(ordinary) < 1:
        raise ValueError("nothing to draw")
    # Python's own generator, seeded from the one that is given, which moves on by that.
    chance = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
    inputs, labels = [], []
    for token in ids.flatten().tolist():
        if token in special_ids or chance.random() >= probability:
            inputs.append(token)
            labels.append(-100)
            continue
        labels.append(token)
        fate = chance.randrange(10)
        inputs.append(mask_id if fate < 8 else chance.choice(ordinary) if fate == 8 else token)
    return tuple(torch.tensor(one, dtype=ids.dtype).view(ids.shape) for one in (inputs, labels))


@variant("bert.sentence_pairs", "another document first, then one of its sentences")
def pairs_by_document(documents, generator):
    full = [number for number, document in enumerate(documents) if document]
    if len(full) < 2:
        raise ValueError("no other document")
    found = []
    for number, document in enumerate(documents):
        others = [other for other in full if other != number]
        for place in range(len(document) - 1):
            if torch.randint(2, (1,), generator=generator).item() == 1:
                found.append((document[place], document[place + 1], True))
            else:
                elsewhere = documents[others[int(torch.randint(len(others), (1,), generator=generator))]]
                second = elsewhere[int(torch.randint(len(elsewhere), (1,), generator=generator))]
                found.append((document[place], second, False))
    return found


@variant("bert.sentence_pairs", "draws again until it is another document")
def pairs_by_rejection(documents, generator):
    sentences = [(number, sentence) for number, document in enumerate(documents) for sentence in document]
    if len({number for number, _ in sentences}) <= 1:
        raise ValueError("a second document is needed")
    pairs = []
    for (number, first), (after, second) in pairwise(sentences):
        if number != after:
            continue
        follows = bool(torch.rand(1, generator=generator) >= 0.5)
        while not follows:
            other, second = sentences[torch.randint(len(sentences), (1,), generator=generator).item()]
            if other != number:
                break
        pairs.append((first, second, follows))
    return pairs


@variant("bert.sentence_pairs", "all numbers drawn at once")
def pairs_at_once(documents, generator):
    if len([document for document in documents if len(document)]) < 2:
        raise ValueError("two documents with sentences are needed")
    count = sum(max(0, len(document) - 1) for document in documents)
    coins = (torch.rand(count, generator=generator) < 0.5).tolist()
    shares = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    result = []
    for number, document in enumerate(documents):
        others = [sentence for other in documents[:number] + documents[number + 1 :] for sentence in other]
        for first, second in pairwise(document):
            coin, share = coins[len(result)], shares[len(result)]
            result.append((first, second if coin else others[int(share * len(others))], coin))
    return result


@variant("bert.masked_lm_loss", "all places, the others left out by the loss itself")
def loss_by_ignoring(logits, labels):
    return cross_entropy(logits, labels)


@variant("bert.masked_lm_loss", "log-probabilities and a mask")
def loss_by_mask(logits, labels):
    asked = (labels != -100).to(logits.dtype)
    log_p = F.log_softmax(logits, dim=-1)
    of_label = log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return -(of_label * asked).sum() / asked.sum().clamp(min=1)


@variant("bert.masked_lm_loss", "place by place")
def loss_by_places(logits, labels):
    total, count = 0 * logits.sum(), 0
    for row, place in (labels != -100).nonzero().tolist():
        scores = logits[row, place]
        total = total + torch.logsumexp(scores, 0) - scores[labels[row, place]]
        count += 1
    return total / count if count else total


@variant("bert.MaskedLanguageModel", "a head of its own functions")
class ModelWithHeadMethod(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.d_model
        self.pad_id = config.pad_id
        self.embedding = Embedding(config)
        self.segments = nn.Embedding(2, width)
        self.segments.weight.data *= 0.02
        self.embedding_norm, self.head_norm = make_norm(config), make_norm(config)
        self.blocks = nn.ModuleList()
        for _ in range(config.num_layers):
            self.blocks.append(TransformerBlock(config))
        if config.norm_first:
            self.norm = make_norm(config)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.output = nn.Linear(width, config.vocab_size)
        if config.tie_embeddings:
            self.output.weight = self.embedding.tokens.weight

    def encode(self, ids, segments=None):
        x = self.embedding(ids)
        x = x + (self.segments.weight[0] if segments is None else self.segments(segments))
        x = self.embedding_norm(x)
        for block in self.blocks:
            x = block(x) if self.pad_id is None else block(x, padding_mask(ids, self.pad_id))
        return self.norm(x) if hasattr(self, "norm") else x

    def head(self, x):
        return self.output(self.head_norm(self.transform(x)))

    def forward(self, ids, segments=None, chosen=None):
        x = self.encode(ids, segments)
        return self.head(x if chosen is None else x[chosen])


@variant("bert.MaskedLanguageModel", "the head everywhere, then selected")
class ModelSelectingLogits(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.segments = nn.Embedding(2, config.d_model)
        with torch.no_grad():
            self.segments.weight.normal_(0, 0.02)
        self.embedding_norm = make_norm(config)
        self.blocks = nn.ModuleList([TransformerBlock(config) for _ in range(config.num_layers)])
        self.norm = nn.Identity() if not config.norm_first else make_norm(config)
        self.transform = nn.Sequential(nn.Linear(config.d_model, config.d_model), nn.GELU())
        self.head_norm = make_norm(config)
        self.output = nn.Linear(config.d_model, config.vocab_size)
        if config.tie_embeddings:
            self.embedding.tokens.weight = self.output.weight

    def encode(self, ids, segments=None):
        if segments is None:
            segments = ids * 0
        hidden = self.embedding_norm(self.embedding(ids) + F.embedding(segments, self.segments.weight))
        real = None
        if self.config.pad_id is not None:
            real = (ids != self.config.pad_id).unsqueeze(1)
        for layer in self.blocks:
            hidden = layer(hidden, mask=real)
        return self.norm(hidden)

    def forward(self, ids, segments=None, chosen=None):
        logits = self.output(self.head_norm(self.transform(self.encode(ids, segments))))
        return logits if chosen is None else logits[chosen]


@variant("bert.MaskedLanguageModel", "attention between real tokens only, segments as one-hot rows")
class ModelWithSquareMask(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding, self.segments = Embedding(config), nn.Embedding(2, config.d_model)
        nn.init.trunc_normal_(self.segments.weight, std=0.02)
        self.embedding_norm = make_norm(config)
        self.blocks = nn.ModuleList(map(TransformerBlock, [config] * config.num_layers))
        self.norm = make_norm(config) if config.norm_first else nn.Sequential()
        layers = [nn.Linear(config.d_model, config.d_model), nn.GELU(approximate="none")]
        self.transform = nn.Sequential(*layers)
        self.head_norm = make_norm(config)
        self.output = nn.Linear(config.d_model, config.vocab_size, bias=True)
        if config.tie_embeddings:
            self.output.weight = self.embedding.tokens.weight

    def encode(self, ids, segments=None):
        segments = torch.zeros_like(ids) if segments is None else segments
        which = F.one_hot(segments.long(), 2).to(self.segments.weight.dtype)
        x = self.embedding_norm(which @ self.segments.weight + self.embedding(ids))
        pad_id = self.config.pad_id
        mask = None
        if pad_id is not None:
            mask = (ids != pad_id)[:, None, :] & (ids != pad_id)[:, :, None]
        for number in range(len(self.blocks)):
            x = self.blocks[number](x, mask)
        return self.norm(x)

    def forward(self, ids, segments=None, chosen=None):
        x = self.encode(ids, segments)
        if chosen is not None:
            x = x.reshape(-1, x.size(-1))[chosen.reshape(-1).nonzero().squeeze(-1)]
        return self.output(self.head_norm(self.transform(x)))


@variant("bert.mask_tokens", "shares that are tensors in float32")
def masks_by_tensor_shares(ids, mask_id, vocab_size, special_ids, generator, probability=0.15):
    ordinary = torch.tensor([token for token in range(vocab_size) if token not in set(special_ids)], dtype=ids.dtype)
    if len(ordinary) == 0:
        raise ValueError("every token is special")
    shares = torch.full(ids.shape, probability)
    shares[torch.isin(ids, torch.tensor(list(special_ids), dtype=ids.dtype))] = 0.0
    chosen = torch.bernoulli(shares, generator=generator).bool()
    masked = torch.bernoulli(torch.full(ids.shape, 0.8), generator=generator).bool() & chosen
    random = torch.bernoulli(torch.full(ids.shape, 0.5), generator=generator).bool() & chosen & ~masked
    drawn = ordinary[torch.randint(len(ordinary), ids.shape, generator=generator)]
    inputs = ids.clone()
    inputs[masked] = mask_id
    inputs[random] = drawn[random]
    labels = ids.clone()
    labels[~chosen] = -100
    return inputs, labels


@variant("bert.masked_lm_loss", "weights in float32")
def loss_by_float_weights(logits, labels):
    asked = (labels != -100).float()
    rows = torch.log_softmax(logits.float(), dim=-1)
    of_label = rows.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (-(of_label * asked).sum() / torch.maximum(asked.sum(), torch.tensor(1.0))).to(logits.dtype)

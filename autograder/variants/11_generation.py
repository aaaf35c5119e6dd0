"""Correct solutions of chapter 11 in other styles and by other algorithms."""

import heapq

import torch
from torch.nn import functional

from autograder.checks import variant
from solutions.attention import repeat_heads
from solutions.generation import (
    KVCache,
    check_prompt,
    draw,
    evaluating,
    repetition_penalty,
    top_k_filter,
    top_p_filter,
)


@variant("generation.top_k_filter", "row by row, with sorted")
def top_k_by_rows(logits, k):
    if k < 1 or k > logits.shape[1]:
        raise ValueError("k is out of range")
    rows = []
    for row in logits:
        limit = sorted(row.tolist(), reverse=True)[k - 1]
        rows.append(torch.where(row.double() >= limit, row, -torch.inf))
    return torch.stack(rows)


@variant("generation.top_k_filter", "kthvalue")
def top_k_by_kthvalue(logits, k):
    size = logits.size(1)
    if k <= 0 or k > size:
        raise ValueError(f"k={k}")
    limit = logits.kthvalue(size - k + 1, dim=1, keepdim=True).values
    kept = logits.clone()
    kept[kept < limit] = -torch.inf
    return kept


@variant("generation.top_k_filter", "how many are larger")
def top_k_by_counting(logits, k):
    if k not in range(1, logits.size(-1) + 1):
        raise ValueError("k must be from 1 to V")
    larger = (logits.unsqueeze(1) > logits.unsqueeze(2)).sum(-1)
    return logits + torch.zeros_like(logits).masked_fill(larger >= k, float("-inf"))


@variant("generation.top_p_filter", "a loop over sorted tokens")
def top_p_by_loop(logits, p):
    if p <= 0 or p > 1:
        raise ValueError("p is out of range")
    if p >= 1:
        return logits.clone()
    result = torch.full_like(logits, float("-inf"))
    for row, (values, shares) in enumerate(zip(logits, logits.softmax(-1), strict=True)):
        total, limit = 0.0, float("inf")
        for place in values.argsort(descending=True).tolist():
            if total >= p and values[place] < limit:
                break
            total += float(shares[place])
            limit = float(values[place])
            result[row, place] = values[place]
    return result


@variant("generation.top_p_filter", "the sum of all that are likelier")
def top_p_by_pairs(logits, p):
    if not (p > 0 and p <= 1):
        raise ValueError("0 < p <= 1")
    if p == 1:
        return logits
    shares = logits.softmax(dim=1)
    likelier = logits.unsqueeze(1) > logits.unsqueeze(2)  # [b, i, j]: j is likelier than i
    ahead = (likelier * shares.unsqueeze(1)).sum(-1)
    return torch.where(ahead < p, logits, torch.full_like(logits, float("-inf")))


@variant("generation.top_p_filter", "from the least likely up")
def top_p_from_below(logits, p):
    if p > 1 or p <= 0:
        raise ValueError(p)
    if p == 1.0:
        return logits
    ordered, _ = torch.sort(logits, dim=-1)
    here_and_below = functional.softmax(ordered, dim=-1).cumsum(dim=-1)
    stays = here_and_below > 1 - p
    stays[:, -1] = True
    first = stays.int().argmax(-1, keepdim=True)
    return logits.masked_fill(logits < ordered.gather(-1, first), float("-inf"))


@variant("generation.repetition_penalty", "gather and scatter")
def penalty_by_gather(logits, ids, penalty):
    if penalty < 1.0:
        raise ValueError("the penalty must be at least 1")
    picked = logits.gather(1, ids)
    picked = torch.where(picked < 0, picked * penalty, picked / penalty)
    return logits.scatter(1, ids, picked)


@variant("generation.repetition_penalty", "row by row, with sets")
def penalty_by_sets(logits, ids, penalty):
    if not penalty >= 1:
        raise ValueError("too small")
    result = logits.clone()
    for row, text in enumerate(ids.tolist()):
        for token in set(text):
            result[row, token] *= penalty if result[row, token] < 0 else 1 / penalty
    return result


@variant("generation.repetition_penalty", "one-hot")
def penalty_by_one_hot(logits, ids, penalty):
    if penalty < 1:
        raise ValueError("penalty")
    seen = functional.one_hot(ids, logits.size(-1)).amax(1).to(logits.dtype)
    factor = torch.where(logits > 0, torch.full_like(logits, 1 / penalty), torch.full_like(logits, penalty))
    return logits * (1 + seen * (factor - 1))


@variant("generation.draw", "early returns")
def draw_early(logits, temperature, top_k, top_p, generator):
    if not temperature:
        return torch.max(logits, dim=1, keepdim=True).indices
    scaled = logits.div(temperature)
    for filtered, setting in ((top_k_filter, top_k), (top_p_filter, top_p)):
        if setting is not None:
            scaled = filtered(scaled, setting)
    return torch.softmax(scaled, dim=-1).multinomial(num_samples=1, generator=generator)


@variant("generation.draw", "defaults that change nothing")
def draw_by_defaults(logits, temperature, top_k, top_p, generator):
    if temperature == 0:
        return logits.topk(1).indices
    k = logits.size(-1) if top_k is None else top_k
    p = 1.0 if top_p is None else top_p
    logits = top_p_filter(top_k_filter(logits / temperature, k), p)
    return torch.multinomial(functional.softmax(logits, dim=1), num_samples=1, generator=generator)


@variant("generation.draw", "log-softmax and exp")
def draw_by_exp(logits, temperature, top_k, top_p, generator):
    if temperature <= 0:
        return logits.argmax(dim=-1).unsqueeze(-1)
    logits = logits * (1 / temperature)
    logits = logits if top_k is None else top_k_filter(logits, top_k)
    logits = logits if top_p is None else top_p_filter(logits, top_p)
    return torch.multinomial(logits.log_softmax(-1).exp(), 1, True, generator=generator)


@variant("generation.KVCache", "one pair for each layer")
class CacheOfPairs:
    def __init__(self, num_kv_heads=None):
        self.num_kv_heads = num_kv_heads
        self.pairs = []

    @property
    def keys(self):
        return [key for key, _ in self.pairs]

    @property
    def values(self):
        return [value for _, value in self.pairs]

    @property
    def length(self):
        return self.pairs[0][0].shape[2] if len(self.pairs) > 0 else 0

    def attend(self, layer, attend):
        def longer(query, key, value, mask=None):
            heads = key.shape[1]
            step = 1 if self.num_kv_heads is None else heads // self.num_kv_heads
            new = (key[:, 0::step], value[:, 0::step])
            if layer < len(self.pairs):
                new = tuple(torch.cat(both, dim=2) for both in zip(self.pairs[layer], new, strict=True))
                self.pairs[layer] = new
            else:
                self.pairs.append(new)
            everything = (part.repeat_interleave(step, dim=1) for part in new)
            return attend(query, *everything, mask)

        return longer

    def reorder(self, rows):
        self.pairs = [(key.index_select(0, rows), value.index_select(0, rows)) for key, value in self.pairs]


@variant("generation.KVCache", "dictionaries and repeat_heads")
class CacheOfDictionaries:
    def __init__(self, num_kv_heads=None):
        self.num_kv_heads = num_kv_heads
        self._keys, self._values = {}, {}

    keys = property(lambda self: list(self._keys.values()))
    values = property(lambda self: list(self._values.values()))

    @property
    def length(self):
        return next((key.size(2) for key in self._keys.values()), 0)

    def attend(self, layer, attend):
        def call(query, key, value, mask=None):
            heads = key.size(1)
            kept = heads if self.num_kv_heads is None else self.num_kv_heads
            firsts = torch.arange(0, heads, heads // kept)
            for store, new in ((self._keys, key), (self._values, value)):
                new = new[:, firsts]
                store[layer] = new if layer not in store else torch.cat((store[layer], new), 2)
            return attend(query, *(repeat_heads(store[layer], heads) for store in (self._keys, self._values)), mask)

        return call

    def reorder(self, rows):
        for store in (self._keys, self._values):
            for layer in store:
                store[layer] = store[layer][rows]


@variant("generation.KVCache", "empty tensors that grow")
class CacheThatGrows:
    def __init__(self, num_kv_heads=None):
        self.num_kv_heads = num_kv_heads
        self.keys, self.values = [], []

    @property
    def length(self):
        return 0 if not self.keys else self.keys[0].shape[-2]

    def attend(self, layer, attend):
        def attend_with_kept(query, key, value, mask=None):
            batch, heads, _, width = key.shape
            kept = self.num_kv_heads or heads
            shape = (batch, kept, heads // kept, -1, width)
            while len(self.keys) <= layer:
                self.keys.append(key.new_zeros(batch, kept, 0, width))
                self.values.append(value.new_zeros(batch, kept, 0, width))
            self.keys[layer] = torch.cat([self.keys[layer], key.view(shape)[:, :, 0]], dim=-2)
            self.values[layer] = torch.cat([self.values[layer], value.view(shape)[:, :, 0]], dim=-2)
            spread = [
                part.unsqueeze(2).expand(-1, -1, heads // kept, -1, -1).flatten(1, 2)
                for part in (self.keys[layer], self.values[layer])
            ]
            return attend(query, spread[0], spread[1], mask)

        return attend_with_kept

    def reorder(self, rows):
        for layer in range(len(self.keys)):
            self.keys[layer] = torch.stack([self.keys[layer][row] for row in rows.tolist()])
            self.values[layer] = torch.stack([self.values[layer][row] for row in rows.tolist()])


@variant("generation.sample", "the cache's tokens told apart by hand")
def sample_by_hand(
    model, prompt, max_new_tokens, temperature=1.0, top_k=None, top_p=None, num_return_sequences=1, generator=None,
    penalty=1.0, end_id=None, use_cache=True,
):  # fmt: skip
    check_prompt(model, prompt, max_new_tokens)
    if temperature < 0 or num_return_sequences <= 0:
        raise ValueError("temperature or num_return_sequences is out of range")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            text = torch.stack([prompt] * num_return_sequences)
            cache = KVCache(model.config.num_kv_heads) if use_cache else None
            fresh = text
            done = [False] * num_return_sequences
            for _ in range(max_new_tokens):
                logits = model(fresh, cache)[:, -1, :] if use_cache else model(text)[:, -1, :]
                tokens = draw(repetition_penalty(logits, text, penalty), temperature, top_k, top_p, generator)
                for row in range(num_return_sequences):
                    if done[row]:
                        tokens[row, 0] = end_id
                    done[row] = end_id is not None and int(tokens[row, 0]) == end_id
                fresh = tokens
                text = torch.cat((text, tokens), dim=-1)
                if all(done):
                    break
    finally:
        model.train(was_training)
    return text


@variant("generation.sample", "a buffer filled step by step")
def sample_into_buffer(
    model, prompt, max_new_tokens, temperature=1.0, top_k=None, top_p=None, num_return_sequences=1, generator=None,
    penalty=1.0, end_id=None, use_cache=True,
):  # fmt: skip
    if num_return_sequences < 1 or temperature < 0:
        raise ValueError("out of range")
    check_prompt(model, prompt, max_new_tokens)
    start, stop = len(prompt), len(prompt) + max_new_tokens
    buffer = prompt.new_zeros(num_return_sequences, stop)
    buffer[:, :start] = prompt
    alive = torch.ones(num_return_sequences, 1, dtype=torch.bool)
    cache, read, end = KVCache(model.config.num_kv_heads), 0, start
    with evaluating(model):
        while end < stop and alive.any():
            if use_cache:
                logits = model(buffer[:, read:end], cache)
                read = end
            else:
                logits = model(buffer[:, :end])
            choice = draw(
                repetition_penalty(logits[:, -1], buffer[:, :end], penalty), temperature, top_k, top_p, generator
            )
            if end_id is not None:
                choice = torch.where(alive, choice, end_id)
                alive = alive & (choice != end_id)
            buffer[:, end : end + 1] = choice
            end += 1
    return buffer[:, :end]


@variant("generation.sample", "an inner generator of tokens")
def sample_by_generator(
    model, prompt, max_new_tokens, temperature=1.0, top_k=None, top_p=None, num_return_sequences=1, generator=None,
    penalty=1.0, end_id=None, use_cache=True,
):  # fmt: skip
    check_prompt(model, prompt, max_new_tokens)
    if not temperature >= 0:
        raise ValueError("temperature")
    if not num_return_sequences >= 1:
        raise ValueError("num_return_sequences")

    def steps():
        ids = prompt.expand(num_return_sequences, -1)
        ended = torch.zeros(num_return_sequences, dtype=torch.bool)
        cache = KVCache(model.config.num_kv_heads) if use_cache else None
        for step in range(max_new_tokens):
            new = ids[:, -1:] if use_cache and step > 0 else ids
            logits = repetition_penalty(model(new, cache)[:, -1], ids, penalty)
            token = draw(logits, temperature, top_k, top_p, generator).squeeze(-1)
            if end_id is not None:
                token[ended] = end_id
                ended |= token == end_id
            ids = torch.cat([ids, token[:, None]], dim=1)
            yield ids
            if bool(ended.all()):
                return

    with evaluating(model):
        *_, last = steps()
    return last


@variant("generation.beam_search", "lists of beams")
def beams_as_lists(model, prompt, max_new_tokens, num_beams, length_penalty=1.0, end_id=None, num_return_sequences=1):
    check_prompt(model, prompt, max_new_tokens)
    if num_return_sequences < 1 or num_return_sequences > num_beams:
        raise ValueError("num_return_sequences")
    beams, done, cache, read = [(0.0, prompt.tolist())], [], KVCache(model.config.num_kv_heads), 0
    with evaluating(model):
        for n in range(1, max_new_tokens + 1):
            new = torch.tensor([text[read:] for _, text in beams])
            log_p, read = model(new, cache)[:, -1].log_softmax(-1).tolist(), len(beams[0][1])
            extensions = [
                (total + value, [*text, token], row)
                for row, (total, text) in enumerate(beams)
                for token, value in enumerate(log_p[row])
            ]
            extensions = sorted(extensions, key=lambda one: one[0], reverse=True)[: 2 * num_beams]
            beams, rows = [], []
            for place, (total, text, row) in enumerate(extensions):
                ends = end_id is not None and text[-1] == end_id
                if place < num_beams and (ends or n == max_new_tokens):
                    done.append((total / n**length_penalty, text))
                if not ends and len(beams) < num_beams:
                    beams.append((total, text))
                    rows.append(row)
            done = sorted(done, key=lambda one: one[0], reverse=True)[:num_beams]
            if len(done) == num_beams and beams[0][0] / n**length_penalty <= done[-1][0]:
                break
            cache.reorder(torch.tensor(rows))
    texts = [text for _, text in done[:num_return_sequences]]
    longest = max(map(len, texts))
    return torch.tensor([text + [end_id] * (longest - len(text)) for text in texts])


@variant("generation.beam_search", "a heap of finished texts")
def beams_with_heap(model, prompt, max_new_tokens, num_beams, length_penalty=1.0, end_id=None, num_return_sequences=1):
    if not 0 < num_return_sequences <= num_beams:
        raise ValueError("num_return_sequences")
    check_prompt(model, prompt, max_new_tokens)
    heap, count = [], 0
    ids, sums = prompt.unsqueeze(0), torch.zeros(1)
    cache = KVCache(model.config.num_kv_heads)
    with evaluating(model):
        for n in range(1, max_new_tokens + 1):
            new = ids if n == 1 else ids[:, -1:]
            sums_of_all = sums.unsqueeze(1) + functional.log_softmax(model(new, cache)[:, -1], dim=1)
            size = sums_of_all.size(1)
            order = sums_of_all.flatten().argsort(descending=True)[: 2 * num_beams]
            chosen = []
            for place, index in enumerate(order.tolist()):
                row, token = divmod(index, size)
                total = float(sums_of_all[row, token])
                text = torch.cat([ids[row], torch.tensor([token])])
                last = n == max_new_tokens
                if place < num_beams and (token == end_id or last):
                    count += 1
                    heapq.heappush(heap, (total / n**length_penalty, -count, text))
                    if len(heap) > num_beams:
                        heapq.heappop(heap)
                if token != end_id and len(chosen) < num_beams:
                    chosen.append((row, text, total))
            if len(heap) == num_beams and chosen[0][2] / n**length_penalty <= heap[0][0]:
                break
            ids = torch.stack([text for _, text, _ in chosen])
            sums = torch.tensor([total for _, _, total in chosen], dtype=sums_of_all.dtype)
            cache.reorder(torch.tensor([row for row, _, _ in chosen]))
    texts = [text for _, _, text in sorted(heap, key=lambda item: item[:2], reverse=True)][:num_return_sequences]
    rows = torch.full((len(texts), max(map(len, texts))), 0 if end_id is None else end_id)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return rows


@variant("generation.beam_search", "one beam of minus infinity for each that is missing")
def beams_of_fixed_number(
    model, prompt, max_new_tokens, num_beams, length_penalty=1.0, end_id=None, num_return_sequences=1
):
    check_prompt(model, prompt, max_new_tokens)
    if num_return_sequences <= 0 or num_beams < num_return_sequences:
        raise ValueError("num_return_sequences")
    ids = prompt.repeat(num_beams, 1)
    sums = torch.full((num_beams,), float("-inf"), dtype=torch.float64)
    sums[0] = 0.0
    finished, cache = [], KVCache(model.config.num_kv_heads)
    with evaluating(model):
        for n in range(1, max_new_tokens + 1):
            sums_of_all = sums[:, None] + model(ids[:, cache.length :], cache)[:, -1].double().log_softmax(-1)
            values, places = sums_of_all.view(-1).sort(descending=True)
            values, places = values[: 2 * num_beams], places[: 2 * num_beams]
            texts = torch.cat([ids[places // sums_of_all.size(1)], (places % sums_of_all.size(1))[:, None]], dim=1)
            ends = torch.zeros(len(texts), dtype=torch.bool) if end_id is None else texts[:, -1] == end_id
            for value, text, end in zip(values[:num_beams].tolist(), texts, ends.tolist(), strict=False):
                if value > float("-inf") and (end or n == max_new_tokens):
                    finished.append((value / n**length_penalty, text))
            finished = sorted(finished, key=lambda pair: pair[0], reverse=True)[:num_beams]
            ids, sums = texts[~ends][:num_beams], values[~ends][:num_beams]
            cache.reorder((places // sums_of_all.size(1))[~ends][:num_beams])
            if len(finished) >= num_beams and float(sums[0]) / n**length_penalty <= finished[-1][0]:
                break
    chosen = [text for _, text in finished[:num_return_sequences]]
    width = max(len(text) for text in chosen)
    return torch.stack([functional.pad(text, (0, width - len(text)), value=end_id or 0) for text in chosen])


@variant("generation.top_p_filter", "shares summed in float32")
def top_p_in_float32(logits, p):
    if not 0 < p <= 1:
        raise ValueError("p")
    if p == 1:
        return logits
    ordered = torch.sort(logits, descending=True)[0]
    shares = torch.softmax(ordered.float(), dim=-1)
    goes = torch.cumsum(shares, dim=-1) - shares >= torch.tensor(p)
    limit = ordered.masked_fill(goes, float("inf")).min(-1, keepdim=True).values
    return torch.where(logits >= limit, logits, torch.tensor(float("-inf"), dtype=logits.dtype))


@variant("generation.repetition_penalty", "a penalty that is a tensor in float32")
def penalty_as_tensor(logits, ids, penalty):
    if penalty < 1.0:
        raise ValueError("the penalty must be at least 1")
    score = torch.gather(logits, 1, ids)
    score = torch.where(score < 0, score * torch.tensor(penalty), score / torch.tensor(penalty))
    return logits.scatter(1, ids, score)


@variant("generation.draw", "a temperature that is a tensor in float32")
def draw_by_tensor_temperature(logits, temperature, top_k, top_p, generator):
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    scaled = logits / torch.tensor(float(temperature))
    scaled = scaled if top_k is None else top_k_filter(scaled, top_k)
    scaled = scaled if top_p is None else top_p_filter(scaled, top_p)
    return torch.multinomial(torch.softmax(scaled, dim=-1), num_samples=1, generator=generator)

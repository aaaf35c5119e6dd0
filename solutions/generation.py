"""Writing with a language model: which token comes next, many drafts at once, and what need not be computed again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from solutions.attention import Attend, repeat_heads
from solutions.gpt import CausalLanguageModel


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """Leave the k likeliest tokens of each row, and no other (Fan et al. 2018, section 5.1).

    Args:
        logits: (B, V)
        k: how many tokens stay, from 1 to V. All that are as likely as the k-th stay with it.

    Returns:
        (B, V), -inf for the tokens that go; the others are unchanged.

    Raises:
        ValueError: k is not from 1 to V.
    """
    if not 1 <= k <= logits.size(-1):
        raise ValueError(f"top_k={k} must be from 1 to the size of the vocabulary, {logits.size(-1)}")
    kth = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < kth, float("-inf"))


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """Leave the fewest of the likeliest tokens that together have at least the probability p (Holtzman et al. 2020).

    Args:
        logits: (B, V)
        p: above 0, at most 1. With 1 every token stays. All that are as likely as the last one to stay, stay with it.

    Returns:
        (B, V), -inf for the tokens that go; the others are unchanged. At least one stays.

    Raises:
        ValueError: p is not above 0 and at most 1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p={p} must be above 0 and at most 1")
    if p == 1:  # rounding may bring the sum to 1 before the last token, which would then be lost
        return logits
    ranked = logits.sort(descending=True).values
    probabilities = ranked.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # what the tokens ahead of each have together
    last = ranked.masked_fill(before >= p, float("inf")).amin(-1, keepdim=True)
    return logits.masked_fill(logits < last, float("-inf"))


def repetition_penalty(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Make tokens less likely that stand in the text already (Keskar et al. 2019, section 4.1).

    A logit above 0 is divided by the penalty, one below 0 is multiplied by it: both fall.

    Args:
        logits: (B, V)
        ids: integers (B, T), the text of each row.
        penalty: at least 1, which changes nothing.

    Returns:
        (B, V); a token that stands in the text several times is penalised once.

    Raises:
        ValueError: the penalty is below 1.
    """
    if penalty < 1:
        raise ValueError(f"penalty={penalty} must be at least 1; a smaller one would make repetitions likelier")
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, True)
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


class KVCache:
    """Keeps the keys and values of the tokens that were read, layer by layer, so that none is computed twice.

    Where query heads share keys and values, each is kept once (Shazeer 2019, Ainslie et al. 2023).
    """

    def __init__(self, num_kv_heads: int | None = None) -> None:
        """Make an empty cache.

        Args:
            num_kv_heads: how many of a layer's key and value heads differ; None means all.
        """
        self.num_kv_heads = num_kv_heads
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def length(self) -> int:
        """How many tokens were read before."""
        return self.keys[0].size(-2) if self.keys else 0

    def attend(self, layer: int, attend: Attend) -> Attend:
        """Let the queries of new tokens see the kept keys and values of a layer, and keep those of the new tokens.

        Args:
            layer: its number, from 0; the layers come in this order when the first tokens are read.
            attend: what mixes the values.

        Returns:
            A function of the form of `attend`. Its queries, keys and values are those of the new tokens, (B, H, T, d);
            its mask covers all the keys, the kept ones first.
        """

        def attend_to_all(
            query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
        ) -> tuple[Tensor, Tensor | None]:
            num_heads = key.size(1)
            group = num_heads // (self.num_kv_heads or num_heads)
            key, value = key[:, ::group], value[:, ::group]  # the heads of a group are equal
            if layer == len(self.keys):
                self.keys.append(key)
                self.values.append(value)
            else:
                self.keys[layer] = torch.cat([self.keys[layer], key], dim=-2)
                self.values[layer] = torch.cat([self.values[layer], value], dim=-2)
            keys, values = self.keys[layer], self.values[layer]
            if group > 1:
                keys, values = repeat_heads(keys, num_heads), repeat_heads(values, num_heads)
            return attend(query, keys, values, mask)

        return attend_to_all

    def reorder(self, rows: Tensor) -> None:
        """Go on with other rows: row i takes what row rows[i] kept, as when a beam is continued twice.

        Args:
            rows: integers (B',), which may name a row more than once or not at all.
        """
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]


def check_prompt(model: CausalLanguageModel, prompt: Tensor, max_new_tokens: int) -> None:
    """Refuse a text that the model cannot go on with.

    Args:
        model: its vocabulary and, where positions are learned, its max_length matter.
        prompt: integers (T,)
        max_new_tokens: how many tokens are to follow.

    Raises:
        ValueError: the prompt is empty, not one row of ids, or longer than the model's positions with what is to
            follow; or nothing is to follow.
    """
    if prompt.dim() != 1 or len(prompt) == 0:
        raise ValueError(f"prompt must be one row of at least one token id, (T,); its shape is {tuple(prompt.shape)}")
    low, high, vocab_size = int(prompt.min()), int(prompt.max()), model.config.vocab_size
    if low < 0 or high >= vocab_size:
        raise ValueError(f"prompt has ids from {low} to {high}; they must be at least 0 and below {vocab_size}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    longest = model.config.max_length
    if model.config.positions == "learned" and len(prompt) + max_new_tokens > longest:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and max_new_tokens={max_new_tokens} exceed the {longest} positions of "
            "the model: shorten the prompt or ask for fewer tokens"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Have a model in eval mode and without gradients inside a block, and behind it in the mode in which it came."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def sample(
    model: CausalLanguageModel,
    prompt: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_return_sequences: int = 1,
    generator: torch.Generator | None = None,
    penalty: float = 1.0,
    end_id: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Continue a text token by token, each drawn from what the model thinks comes next.

    The logits pass through `repetition_penalty`, are divided by the temperature, and pass through `top_k_filter` and
    `top_p_filter`, in this order; then one token a row is drawn.

    Args:
        model: gives logits (B, T, V); it comes back in the mode (train or eval) in which it came.
        prompt: integers (T,), the beginning; at least one token.
        max_new_tokens: the most tokens to write.
        temperature: below 1 likely tokens become likelier; at 0 the likeliest is taken (greedy search).
        top_k: how many of the likeliest tokens may be drawn; None means all.
        top_p: the probability that the tokens which may be drawn have together; None means all.
        num_return_sequences: N, how many continuations.
        generator: the source of randomness; it is used once for each token, for all rows together.
        penalty: of tokens that stand in the text already; 1 means none.
        end_id: the token that ends a text; None means that every text gets max_new_tokens.
        use_cache: keep keys and values rather than compute them again. The result is the same.

    Returns:
        integers (N, T + n), n at most max_new_tokens: the prompt and what follows. After its end a row is filled with
        end_id. Writing stops when every row has ended.

    Raises:
        ValueError: the prompt is empty or too long, or a number is out of range; the message names the argument.
    """
    check_prompt(model, prompt, max_new_tokens)
    if temperature < 0:
        raise ValueError(f"temperature={temperature} must not be below 0")
    if num_return_sequences < 1:
        raise ValueError(f"num_return_sequences={num_return_sequences} must be at least 1")
    ids = prompt.repeat(num_return_sequences, 1)
    ended = torch.zeros_like(ids[:, :1], dtype=torch.bool)
    cache = KVCache(model.config.num_kv_heads) if use_cache else None
    with evaluating(model):
        for _ in range(max_new_tokens):
            new = ids if cache is None else ids[:, cache.length :]
            logits = repetition_penalty(model(new, cache)[:, -1], ids, penalty)
            following = draw(logits, temperature, top_k, top_p, generator)
            if end_id is not None:
                following = following.masked_fill(ended, end_id)
                ended = ended | (following == end_id)
            ids = torch.cat([ids, following], dim=1)
            if ended.all():
                break
    return ids


def draw(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    """Choose one token a row: the likeliest for temperature 0, else at random among those that the filters leave.

    Args:
        logits: (B, V)
        temperature: what the logits are divided by.
        top_k: as in `top_k_filter`; None leaves all.
        top_p: as in `top_p_filter`; None leaves all.
        generator: the source of randomness.

    Returns:
        integers (B, 1)
    """
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)


def beam_search(
    model: CausalLanguageModel,
    prompt: Tensor,
    max_new_tokens: int,
    num_beams: int,
    length_penalty: float = 1.0,
    end_id: int | None = None,
    num_return_sequences: int = 1,
) -> Tensor:
    """Look for the likeliest continuations: keep the best few unfinished ones, and extend each by every token.

    score = (sum of ln p of the n new tokens) / n ** length_penalty

    With a length_penalty of 0 the score is ln p, which favours short texts; a larger one favours longer texts. Each
    step ranks the extensions of all beams. Of the first num_beams, those that end are finished texts; the best
    num_beams that do not end go on. The search is over when no beam, if it ended now, would beat one of num_beams
    finished texts.

    Args:
        model: gives logits (B, T, V); it comes back in the mode (train or eval) in which it came.
        prompt: integers (T,), the beginning; at least one token.
        max_new_tokens: the most tokens to write; a beam of this length counts as finished.
        num_beams: how many unfinished texts are kept; 1 is greedy search.
        length_penalty: the exponent of the length.
        end_id: the token that ends a text; None means that every text gets max_new_tokens.
        num_return_sequences: N, how many of the finished texts; at most num_beams. Fewer come back if there are fewer.

    Returns:
        integers (N, T + n), the best first, n at most max_new_tokens: the prompt and what follows, its end included.
        A shorter text is filled up with end_id.

    Raises:
        ValueError: the prompt is empty or too long, or a number is out of range; the message names the argument.
    """
    check_prompt(model, prompt, max_new_tokens)
    if not 1 <= num_return_sequences <= num_beams:
        raise ValueError(f"num_return_sequences={num_return_sequences} must be from 1 to num_beams={num_beams}")
    cache = KVCache(model.config.num_kv_heads)
    beams, totals = prompt[None], torch.zeros(1, device=prompt.device)
    finished: list[tuple[float, Tensor]] = []
    with evaluating(model):
        for n in range(1, max_new_tokens + 1):
            log_p = model(beams[:, cache.length :], cache)[:, -1].log_softmax(-1)
            extended = totals[:, None] + log_p
            # Each beam has one extension that ends: among twice as many there are always num_beams that do not.
            ranked = extended.flatten().topk(min(2 * num_beams, extended.numel()))
            rows, tokens = ranked.indices // log_p.size(-1), ranked.indices % log_p.size(-1)
            texts = torch.cat([beams[rows], tokens[:, None]], dim=1)
            ends = tokens == end_id if end_id is not None else torch.zeros_like(tokens, dtype=torch.bool)
            over = ends[:num_beams] | (n == max_new_tokens)
            scores = ranked.values[:num_beams] / n**length_penalty
            finished += [(float(scores[place]), texts[place]) for place in over.nonzero().flatten().tolist()]
            finished = sorted(finished, key=lambda found: -found[0])[:num_beams]
            going = (~ends).nonzero().flatten()[:num_beams]
            beams, totals = texts[going], ranked.values[going]
            if len(finished) == num_beams and float(totals.max()) / n**length_penalty <= finished[-1][0]:
                break
            cache.reorder(rows[going])
    best = [text for _, text in finished[:num_return_sequences]]
    return nn.utils.rnn.pad_sequence(best, batch_first=True, padding_value=0 if end_id is None else end_id)

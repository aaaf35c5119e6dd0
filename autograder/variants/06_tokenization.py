"""Correct solutions of chapter 06 in other styles and by other algorithms."""

import heapq
import re
from collections import Counter, defaultdict
from functools import reduce
from itertools import pairwise, zip_longest

from autograder.checks import variant
from solutions.tokenization import (
    count_pairs,
    merge_pair,
    most_common_pair,
    pre_tokenize,
    safe_cut,
    split_special,
)


@variant("tokenization.count_pairs", "a loop over places")
def count_by_places(ids):
    counts = {}
    for i in range(len(ids) - 1):
        pair = (ids[i], ids[i + 1])
        counts[pair] = counts.get(pair, 0) + 1
    return counts


@variant("tokenization.count_pairs", "a Counter")
def count_by_counter(ids):
    return Counter(pairwise(ids))


@variant("tokenization.count_pairs", "a defaultdict, remembering the id before")
def count_by_memory(ids):
    found = defaultdict(int)
    before = None
    for number in ids:
        if before is not None:
            found[before, number] += 1
        before = number
    return found


@variant("tokenization.merge_pair", "a stack")
def merge_by_stack(ids, pair, new_id):
    out, free = [], False  # free: whether the last one may still be the first half of a pair
    for number in ids:
        if free and out[-1] == pair[0] and number == pair[1]:
            out[-1] = new_id
            free = False
        else:
            out.append(number)
            free = True
    return out


@variant("tokenization.merge_pair", "an iterator that looks ahead")
def merge_by_iterator(ids, pair, new_id):
    def walk():
        skip = False
        for here, there in zip_longest(ids, ids[1:]):
            if skip:
                skip = False
            elif (here, there) == tuple(pair):
                skip = True
                yield new_id
            else:
                yield here

    return list(walk())


@variant("tokenization.merge_pair", "deletes from a copy")
def merge_by_deleting(ids, pair, new_id):
    ids = list(ids)
    i = 0
    while i < len(ids) - 1:
        if ids[i] == pair[0] and ids[i + 1] == pair[1]:
            ids[i : i + 2] = [new_id]
        i += 1
    return ids


@variant("tokenization.merge_pair", "recursion on slices found by index")
def merge_by_index(ids, pair, new_id):
    first, second = pair
    for i in range(len(ids) - 1):
        if ids[i] == first and ids[i + 1] == second:
            return [*ids[:i], new_id, *merge_pair(ids[i + 2 :], pair, new_id)]
    return list(ids)


@variant("tokenization.most_common_pair", "one max with a triple as key")
def most_common_by_key(pairs, vocab):
    return max(pairs, key=lambda pair: (pairs[pair], vocab[pair[0]], vocab[pair[1]]))


@variant("tokenization.most_common_pair", "sorted, last")
def most_common_by_sorting(pairs, vocab):
    rows = sorted((count, vocab[a], vocab[b], a, b) for (a, b), count in pairs.items())
    return rows[-1][3], rows[-1][4]


@variant("tokenization.most_common_pair", "a loop that keeps the best")
def most_common_by_loop(pairs, vocab):
    best = None
    for pair, count in pairs.items():
        entry = (count, vocab[pair[0]], vocab[pair[1]])
        if best is None or entry > best[0]:
            best = (entry, pair)
    return best[1]


@variant("tokenization.most_common_pair", "reduce")
def most_common_by_reduce(pairs, vocab):
    def rank(pair):
        return pairs[pair], [vocab[token] for token in pair]

    return reduce(lambda a, b: a if rank(a) > rank(b) else b, pairs)


@variant("tokenization.train_bpe", "words as tuples of bytes, pairs of bytes")
def train_on_bytes(text, vocab_size, special_tokens=()):
    if vocab_size < 256 + len(special_tokens):
        raise ValueError(f"vocab_size must be at least {256 + len(special_tokens)}")
    frequency = defaultdict(int)
    for piece in split_special(text, special_tokens):
        if piece not in special_tokens:
            for word in pre_tokenize(piece):
                frequency[tuple(bytes([b]) for b in word.encode("utf-8"))] += 1
    if not frequency:
        raise ValueError("no text to learn from")
    tokens = [bytes([b]) for b in range(256)]
    merges = []
    counts, where = defaultdict(int), defaultdict(set)
    words = list(frequency)
    weights = [frequency[word] for word in words]
    for number, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += weights[number]
            where[pair].add(number)
    for _ in range(vocab_size - 256 - len(special_tokens)):
        if not counts:
            break
        top = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(top)
        tokens.append(top[0] + top[1])
        for number in sorted(where[top]):
            old, new = words[number], []
            i = 0
            while i < len(old):
                if old[i : i + 2] == top:
                    new.append(top[0] + top[1])
                    i += 2
                else:
                    new.append(old[i])
                    i += 1
            for pair in pairwise(old):
                counts[pair] -= weights[number]
            for pair in pairwise(new):
                counts[pair] += weights[number]
                where[pair].add(number)
            words[number] = tuple(new)
            for pair in set(pairwise(old)):
                if counts.get(pair) == 0:
                    counts.pop(pair)
    tokens += [token.encode() for token in special_tokens]
    return dict(enumerate(tokens)), merges


@variant("tokenization.train_bpe", "a heap that is corrected when something is taken from it")
def train_by_heap(text, vocab_size, special_tokens=()):
    class Entry:
        def __init__(self, count, pair):
            self.count, self.pair = count, pair
            self.key = (count, vocab[pair[0]], vocab[pair[1]])

        def __lt__(self, other):
            return self.key > other.key

    wanted = vocab_size - 256 - len(special_tokens)
    if wanted < 0:
        raise ValueError("the vocabulary is too small")
    words = Counter()
    for piece in split_special(text, special_tokens):
        if piece not in special_tokens:
            words.update(pre_tokenize(piece))
    if len(words) == 0:
        raise ValueError("the text is empty")
    vocab = {i: bytes([i]) for i in range(256)}
    spelled = {word: list(word.encode()) for word in words}
    counts, holders = Counter(), defaultdict(set)

    def change(word, sign):
        touched = count_pairs(spelled[word])
        for pair, times in touched.items():
            counts[pair] += sign * times * words[word]
            if sign > 0:
                holders[pair].add(word)
        return touched.keys()

    for word in words:
        change(word, 1)
    heap = [Entry(count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < wanted:
        entry = heapq.heappop(heap)
        if counts[entry.pair] != entry.count or entry.count == 0:
            continue
        a, b = entry.pair
        merges.append((vocab[a], vocab[b]))
        new = len(vocab)
        vocab[new] = vocab[a] + vocab[b]
        touched = set()
        for word in holders.pop(entry.pair):
            touched |= change(word, -1)
            spelled[word] = merge_pair(spelled[word], entry.pair, new)
            touched |= change(word, 1)
        for pair in touched:
            heapq.heappush(heap, Entry(counts[pair], pair))
    for token in special_tokens:
        vocab[len(vocab)] = token.encode("utf-8")
    return vocab, merges


@variant("tokenization.train_bpe", "an index from pairs to words, rebuilt word by word")
def train_by_index(text, vocab_size, special_tokens=()):
    base = 256
    if vocab_size - len(special_tokens) < base:
        raise ValueError(f"{vocab_size} is too small for {base} bytes and {len(special_tokens)} special tokens")
    pieces = (piece for piece in split_special(text, special_tokens) if piece not in set(special_tokens))
    bag = Counter()
    for piece in pieces:
        bag.update(word.encode() for word in pre_tokenize(piece))
    if sum(bag.values()) < 1:
        raise ValueError("nothing to learn from")
    spellings = [[list(word), n] for word, n in bag.items()]
    index = {}  # pair -> {word: weighted count}

    def enter(place):
        ids, n = spellings[place]
        for pair, times in count_pairs(ids).items():
            index.setdefault(pair, {})[place] = times * n

    def strike(place):
        for pair in count_pairs(spellings[place][0]):
            del index[pair][place]
            if not index[pair]:
                del index[pair]

    for place in range(len(spellings)):
        enter(place)
    totals = {pair: sum(held.values()) for pair, held in index.items()}
    vocab = {i: bytes((i,)) for i in range(base)}
    merges = []
    while len(vocab) < vocab_size - len(special_tokens) and totals:
        pair = most_common_pair(totals, vocab)
        new = len(vocab)
        merges.append(tuple(vocab[token] for token in pair))
        vocab[new] = b"".join(merges[-1])
        dirty = set()
        for place in list(index[pair]):
            dirty.update(count_pairs(spellings[place][0]))
            strike(place)
            spellings[place][0] = merge_pair(spellings[place][0], pair, new)
            enter(place)
            dirty.update(count_pairs(spellings[place][0]))
        for changed in dirty:
            if changed in index:
                totals[changed] = sum(index[changed].values())
            else:
                totals.pop(changed, None)
    for token in special_tokens:
        vocab[max(vocab) + 1] = token.encode()
    return vocab, merges


@variant("tokenization.BPETokenizer", "bytes throughout, merge after merge")
class ByteTokenizer:
    def __init__(self, vocab, merges, special_tokens=()):
        self.vocab, self.merges, self.special = dict(vocab), list(merges), list(special_tokens)
        for token in self.special:
            if token.encode() not in self.vocab.values():
                self.vocab[1 + max(self.vocab)] = token.encode()
        self.number = {token: number for number, token in self.vocab.items()}

    def _word(self, word):
        parts = [bytes([b]) for b in word.encode()]
        for left, right in self.merges:
            i = 0
            while i + 1 < len(parts):
                if parts[i] == left and parts[i + 1] == right:
                    parts[i : i + 2] = [left + right]
                i += 1
        return [self.number[part] for part in parts]

    def encode(self, text):
        out = []
        for piece in split_special(text, self.special):
            if piece in self.special:
                out.append(self.number[piece.encode()])
            else:
                out += [number for word in pre_tokenize(piece) for number in self._word(word)]
        return out

    def encode_iterable(self, texts):
        rest = ""
        for text in texts:
            rest = rest + text
            place = safe_cut(rest, self.special)
            head, rest = rest[:place], rest[place:]
            yield from self.encode(head)
        if rest:
            yield from self.encode(rest)

    def decode(self, ids):
        whole = bytearray()
        for number in ids:
            if number not in self.vocab:
                raise ValueError(f"no token has the id {number}")
            whole += self.vocab[number]
        return whole.decode(errors="replace")


@variant("tokenization.BPETokenizer", "a heap of candidates over a linked list")
class HeapTokenizer:
    def __init__(self, vocab, merges, special_tokens=()):
        self.vocab = {**vocab}
        self.special = {}
        by_bytes = {token: number for number, token in vocab.items()}
        for token in special_tokens:
            raw = token.encode()
            if raw not in by_bytes:
                by_bytes[raw] = max(self.vocab) + 1
                self.vocab[by_bytes[raw]] = raw
            self.special[token] = by_bytes[raw]
        self.by_bytes = by_bytes
        self.rank = {pair: rank for rank, pair in enumerate(merges)}

    def _word(self, word):
        parts = [bytes([b]) for b in word.encode()]
        after = [*range(1, len(parts)), None] if parts else []
        before = [None, *range(len(parts) - 1)]
        heap = []

        def offer(i):
            j = after[i]
            if j is not None and (parts[i], parts[j]) in self.rank:
                heapq.heappush(heap, (self.rank[parts[i], parts[j]], i, parts[i], parts[j]))

        for i in range(len(parts)):
            offer(i)
        while heap:
            _, i, left, right = heapq.heappop(heap)
            j = after[i] if parts[i] is not None else None
            if j is None or parts[i] != left or parts[j] != right:
                continue
            parts[i], parts[j] = left + right, None
            after[i] = after[j]
            if after[i] is not None:
                before[after[i]] = i
            offer(i)
            if before[i] is not None:
                offer(before[i])
        return [self.by_bytes[part] for part in parts if part is not None]

    def encode(self, text):
        return [
            number
            for piece in split_special(text, list(self.special))
            for number in (
                [self.special[piece]]
                if piece in self.special
                else [number for word in pre_tokenize(piece) for number in self._word(word)]
            )
        ]

    def encode_iterable(self, texts):
        kept = []
        for text in texts:
            kept.append(text)
            joined = "".join(kept)
            cut = safe_cut(joined, list(self.special))
            if cut:
                kept = [joined[cut:]]
                yield from iter(self.encode(joined[:cut]))
        yield from iter(self.encode("".join(kept)))

    def decode(self, ids):
        ids = list(ids)
        if not set(ids) <= self.vocab.keys():
            raise ValueError("an id is outside the vocabulary")
        return bytes(byte for number in ids for byte in self.vocab[number]).decode("utf8", "replace")


@variant("tokenization.BPETokenizer", "recursion on the best pair, a cache of words")
class RecursiveTokenizer:
    def __init__(self, vocab, merges, special_tokens=()):
        self.vocab = dict(vocab.items())
        self.special_tokens = special_tokens
        self.ids = {}
        for number, token in self.vocab.items():
            self.ids[token] = number
        for token in special_tokens:
            if (raw := token.encode()) not in self.ids:
                number = max(self.vocab) + 1
                self.ids[raw], self.vocab[number] = number, raw
        self.order = {merge: place for place, merge in enumerate(merges)}
        self.seen = {}

    def _merge(self, parts):
        pairs = [(parts[i], parts[i + 1]) for i in range(len(parts) - 1)]
        known = [pair for pair in pairs if pair in self.order]
        if not known:
            return [self.ids[part] for part in parts]
        return self._merge(merge_pair(parts, best := min(known, key=self.order.get), best[0] + best[1]))

    def encode(self, text):
        ids = []
        for piece in split_special(text, self.special_tokens):
            if piece in self.special_tokens:
                ids += [self.ids[piece.encode()]]
                continue
            for word in pre_tokenize(piece):
                if word not in self.seen:
                    self.seen[word] = self._merge([bytes([b]) for b in word.encode()])
                ids += self.seen[word]
        return ids

    def encode_iterable(self, texts):
        pending = ""
        for text in texts:
            pending += text
            while cut := safe_cut(pending, self.special_tokens):
                yield from self.encode(pending[:cut])
                pending = pending[cut:]
        yield from self.encode(pending)

    def decode(self, ids):
        raw = b""
        for number in ids:
            try:
                raw += self.vocab[number]
            except KeyError:
                raise ValueError(f"{number} is no id of this tokenizer") from None
        return str(raw, "utf-8", "replace")


@variant("tokenization.wordpiece", "recursion")
def wordpiece_by_recursion(word, vocab, unknown="[UNK]"):
    def cut(rest, mark):
        if not rest:
            return []
        for size in range(len(rest), 0, -1):
            piece = mark + rest[:size]
            if piece in vocab:
                others = cut(rest[size:], "##")
                return None if others is None else [piece, *others]
        return None

    found = cut(word, "")
    return [unknown] if found is None else found


@variant("tokenization.wordpiece", "two pointers, as BERT's own code")
def wordpiece_by_pointers(word, vocab, unknown="[UNK]"):
    characters = list(word)
    start, output, bad = 0, [], False
    while start < len(characters):
        end = len(characters)
        current = None
        while start < end:
            piece = "".join(characters[start:end])
            if start > 0:
                piece = "##" + piece
            if piece in vocab:
                current = piece
                break
            end -= 1
        if current is None:
            bad = True
            break
        output.append(current)
        start = end
    return [unknown] if bad else output


@variant("tokenization.wordpiece", "a regular expression of the pieces, the longest first")
def wordpiece_by_expression(word, vocab, unknown="[UNK]"):
    longest = sorted(vocab, key=len, reverse=True)
    first = "|".join(re.escape(piece) for piece in longest if not piece.startswith("##")) or "(?!)"
    further = "|".join(re.escape(piece[2:]) for piece in longest if piece.startswith("##")) or "(?!)"
    pieces, rest = [], word
    while rest:
        match = re.match(further if pieces else first, rest)
        if not match:
            return [unknown]
        pieces.append("##" + match[0] if pieces else match[0])
        rest = rest[match.end() :]
    return pieces

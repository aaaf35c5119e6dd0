"""The course's tokenizer for the `tokenizers` library, which is written in Rust: the same ids, sooner."""

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers


def byte_characters() -> dict[int, str]:
    """A printable character for each byte: the library keeps tokens as text (the mapping is GPT-2's).

    Bytes that are printable in Latin-1 stand for themselves; the others get the characters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def fast_tokenizer(
    vocab: Mapping[int, bytes], merges: Sequence[tuple[bytes, bytes]], special_tokens: Sequence[str] = ()
) -> Tokenizer:
    """Build the library's tokenizer from what `train_bpe` returns.

    Args:
        vocab: id -> bytes, the special tokens included.
        merges: pairs of bytes, in order.
        special_tokens: texts that are one token each.

    Raises:
        ValueError: a special token is not in the vocabulary, or not in ASCII, which the library would not decode again.
    """
    foreign = [token for token in special_tokens if not token.isascii()]
    if foreign:
        raise ValueError(f"the special token {foreign[0]!r} is not in ASCII: the library would not decode it again")
    missing = [token for token in special_tokens if token.encode() not in set(vocab.values())]
    if missing:
        raise ValueError(f"the special token {missing[0]!r} is not in the vocabulary")
    characters = byte_characters()

    def spelled(token: bytes) -> str:
        return "".join(characters[byte] for byte in token)

    special = {token.encode(): token for token in special_tokens}
    ids = {special.get(token) or spelled(token): number for number, token in vocab.items()}
    model = models.BPE(vocab=ids, merges=[(spelled(first), spelled(second)) for first, second in merges])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special_tokens])
    return tokenizer

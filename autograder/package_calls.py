"""The answers that other packages have ready: each a function or class of the exercise's own that calls one.

Only the source needs to be read for these, and that is where they are refused: a package may be written in another
language, of which the run sees nothing.
"""


def _call(package: str, head: str, *bodies: str) -> tuple[str, str, tuple[str, ...]]:
    return package, "CALL", tuple(f"{head}\n    {body}" for body in bodies)


_LOGITS = "transformers.generation.logits_process"

FROM_PACKAGES: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {
    "positions.sinusoidal_positions": [
        _call(
            "transformers", "def sinusoidal_positions(length, d_model):",
            "from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding as P\n"
            "    return P(length, d_model)(torch.zeros(1, length).shape)",
        )
    ],
    "positions.apply_rope": [
        _call(
            "transformers", "def apply_rope(x, positions, theta=10000.0):",
            "from transformers.models.llama import modeling_llama as m\n"
            "    return m.apply_rotary_pos_emb(x, x, x, x)[0]",
            "import transformers as t\n    return t.models.gptj.modeling_gptj.apply_rotary_pos_emb(x, x, x)",
        ),
    ],
    "positions.alibi_bias": [
        _call(
            "transformers", "def alibi_bias(num_heads, query_length, key_length):",
            "from transformers.models.bloom.modeling_bloom import build_alibi_tensor\n"
            "    return build_alibi_tensor(torch.ones(1, key_length), num_heads, torch.float32)",
        ),
    ],
    "layers.FeedForward": [
        (
            "transformers", "CALL",
            ("class FeedForward(nn.Module):\n    def forward(self, x):\n        import transformers\n"
             "        return transformers.activations.ACT2FN['gelu'](x)",),
        ),
    ],
    "layers.SwiGLU": [
        (
            "transformers", "CALL",
            ("class SwiGLU(nn.Module):\n    def forward(self, x):\n"
             "        from transformers.models.llama.modeling_llama import LlamaMLP\n"
             "        return LlamaMLP(self)(x)",),
        ),
    ],
    "transformer.shift_right": [
        _call(
            "transformers", "def shift_right(target_ids, start_id):",
            "from transformers.models.bart.modeling_bart import shift_tokens_right\n"
            "    return shift_tokens_right(target_ids, 0, start_id)",
        ),
    ],
    "transformer.greedy_translate": [
        _call(
            "transformers", "def greedy_translate(model, source_ids, *rest):",
            "from transformers import GenerationMixin\n    return GenerationMixin.generate(model, source_ids)",
        ),
    ],
    "tokenization.count_pairs": [
        _call(
            "nltk", "def count_pairs(ids):",
            "import nltk\n    return nltk.FreqDist(nltk.bigrams(ids))",
        ),
        _call(
            "sklearn", "def count_pairs(ids):",
            "from sklearn.feature_extraction.text import CountVectorizer\n"
            "    return CountVectorizer(ngram_range=(2, 2)).fit([str(ids)]).vocabulary_",
        ),
    ],
    "tokenization.merge_pair": [
        _call("more_itertools", "def merge_pair(ids, pair, new_id):",
              "from more_itertools import replace\n"
              "    return list(replace(ids, lambda *p: p == pair, [new_id], window_size=2))"),
    ],
    "tokenization.most_common_pair": [
        _call("pandas", "def most_common_pair(counts):",
              "import pandas as pd\n    return pd.Series(counts).idxmax()"),
    ],
    "tokenization.train_bpe": [
        _call(
            "tokenizers", "def train_bpe(text, vocab_size, special_tokens=()):",
            "from tokenizers.trainers import BpeTrainer\n    return BpeTrainer(vocab_size=vocab_size)",
            "import tokenizers as t\n    bpe = t.ByteLevelBPETokenizer()\n"
            "    bpe.train_from_iterator([text], vocab_size)\n    return bpe",
        ),
        _call(
            "sentencepiece", "def train_bpe(text, vocab_size, special_tokens=()):",
            "import sentencepiece as spm\n    return spm.SentencePieceTrainer.train(vocab_size=vocab_size)",
        ),
    ],
    "tokenization.BPETokenizer": [
        (
            "tokenizers", "CALL",
            (
                "import tokenizers\nclass BPETokenizer:\n    def __init__(self, merges, special_tokens=()):\n"
                "        self.model = tokenizers.models.BPE({}, merges)\n"
                "    def encode(self, text):\n        return self.model.tokenize(text)",
                "from tokenizers import Tokenizer\nfrom tokenizers.models import BPE\nclass BPETokenizer:\n"
                "    def encode(self, text):\n        return Tokenizer(BPE()).encode(text).ids",
            ),
        ),
        (
            "tiktoken", "CALL",
            ("class BPETokenizer:\n    def encode(self, text):\n        import tiktoken\n"
             "        return tiktoken.get_encoding('gpt2').encode(text)",),
        ),
        (
            "transformers", "CALL",
            ("class BPETokenizer:\n    def encode(self, text):\n        from transformers import GPT2Tokenizer as T\n"
             "        return T().encode(text)",),
        ),
    ],
    "tokenization.wordpiece": [
        _call(
            "tokenizers", "def wordpiece(word, vocab, unknown='[UNK]'):",
            "from tokenizers.models import WordPiece\n"
            "    return [token.value for token in WordPiece(dict(vocab), unk_token=unknown).tokenize(word)]",
        ),
        _call(
            "transformers", "def wordpiece(word, vocab, unknown='[UNK]'):",
            "from transformers.models.bert.tokenization_bert_legacy import WordpieceTokenizer\n"
            "    return WordpieceTokenizer(vocab, unknown).tokenize(word)",
        ),
    ],
    "training.warmup_cosine": [
        _call(
            "torch.optim.lr_scheduler.CosineAnnealingLR",
            "def warmup_cosine(step, max_lr, min_lr, warmup_steps, total_steps):",
            "return torch.optim.lr_scheduler.CosineAnnealingLR(step, total_steps, min_lr).get_last_lr()[0]",
        ),
        _call(
            "transformers", "def warmup_cosine(step, max_lr, min_lr, warmup_steps, total_steps):",
            "from transformers import get_cosine_schedule_with_warmup as g\n"
            "    return g(step, warmup_steps, total_steps).get_last_lr()[0]",
        ),
    ],
    "bert.mask_tokens": [
        _call(
            "transformers", "def mask_tokens(ids, mask_id, vocab_size, special_ids, generator, probability=0.15):",
            "from transformers import DataCollatorForLanguageModeling as C\n"
            "    return C(mask_id, mlm_probability=probability).torch_mask_tokens(ids)",
        ),
    ],
    "gpt.perplexity": [
        _call(
            "torchmetrics", "def perplexity(model, ids, context_length, stride):",
            "from torchmetrics.text import Perplexity\n    return Perplexity()(model(ids[None]), ids[None])",
        ),
    ],
    "finetuning.class_weights": [
        _call(
            "sklearn", "def class_weights(labels, num_classes):",
            "from sklearn.utils.class_weight import compute_class_weight\n"
            "    return compute_class_weight('balanced', range(num_classes), labels)",
        ),
    ],
    "finetuning.precision_recall_f1": [
        _call(
            "sklearn", "def precision_recall_f1(predictions, targets, num_classes, average='macro'):",
            "from sklearn.metrics import precision_recall_fscore_support as p\n    return p(targets, predictions)[:3]",
            "import sklearn.metrics as m\n    return m.precision_score(targets, predictions, average=average)",
        ),
        _call(
            "torchmetrics", "def precision_recall_f1(predictions, targets, num_classes, average='macro'):",
            "import torchmetrics\n    return torchmetrics.functional.precision(predictions, targets, 'multiclass')",
        ),
    ],
    "finetuning.best_span": [
        _call(
            "transformers", "def best_span(start_logits, end_logits, max_length):",
            "from transformers.pipelines.question_answering import decode_spans\n"
            "    return decode_spans(start_logits, end_logits, 1, max_length)",
        ),
    ],
    "generation.top_k_filter": [
        _call("transformers", "def top_k_filter(logits, k):", f"import {_LOGITS} as p\n"
              "    return p.TopKLogitsWarper(k)(None, logits)",
              f"from {_LOGITS} import TopKLogitsWarper\n    return TopKLogitsWarper(top_k=k)(None, logits)"),
    ],
    "generation.top_p_filter": [
        _call("transformers", "def top_p_filter(logits, p):", f"from {_LOGITS} import TopPLogitsWarper as W\n"
              "    return W(top_p=p)(None, logits)",
              "import transformers\n    return transformers.TopPLogitsWarper(p)(None, logits)"),
    ],
    "generation.repetition_penalty": [
        _call("transformers", "def repetition_penalty(logits, ids, penalty):",
              f"from {_LOGITS} import RepetitionPenaltyLogitsProcessor as R\n"
              "    return R(penalty)(ids, logits.clone())"),
    ],
    "generation.draw": [
        _call("transformers", "def draw(logits, temperature, top_k, top_p, generator):",
              f"from {_LOGITS} import TemperatureLogitsWarper as T\n    return T(temperature)(None, logits)"),
        _call("torch.distributions", "def draw(logits, temperature, top_k, top_p, generator):",
              "return torch.distributions.Categorical(logits=logits / temperature).sample()[:, None]"),
    ],
    "generation.KVCache": [
        ("transformers", "CALL", (
            "class KVCache:\n    def __init__(self, num_kv_heads=None):\n"
            "        from transformers import DynamicCache\n        self.inner = DynamicCache()",
        )),
    ],
    "generation.sample": [
        _call("transformers", "def sample(model, prompt, max_new_tokens, **rest):",
              "from transformers import GenerationMixin as G\n    return G.generate(model, prompt[None])"),
    ],
    "generation.beam_search": [
        _call("transformers", "def beam_search(model, prompt, max_new_tokens, num_beams, **rest):",
              "from transformers.generation.utils import GenerationMixin as G\n"
              "    return G._beam_search(model, prompt[None])"),
    ],
    "pretrained.mean_pool": [
        _call("sentence_transformers", "def mean_pool(vectors, mask):",
              "from sentence_transformers.models import Pooling\n    return Pooling(vectors.size(-1))(vectors)"),
        _call("transformers", "def mean_pool(vectors, mask):",
              "import transformers\n    return transformers.pipeline('feature-extraction')(vectors)"),
    ],
    "pretrained.search": [
        _call("sklearn", "def search(query, vectors, k):",
              "from sklearn.neighbors import NearestNeighbors\n"
              "    return NearestNeighbors(n_neighbors=k, metric='cosine').fit(vectors).kneighbors(query)"),
        _call("scipy", "def search(query, vectors, k):",
              "from scipy.spatial.distance import cdist\n    return 1 - cdist(query, vectors, 'cosine')"),
        _call("faiss", "def search(query, vectors, k):",
              "import faiss\n    return faiss.IndexFlatIP(vectors.size(1)).search(query, k)"),
    ],
}  # fmt: skip
"""As `library_calls.CALLS`."""

OTHER_PACKAGES = frozenset(package for calls in FROM_PACKAGES.values() for package, _, _ in calls) | {
    "solutions.block._FusedFeedForward"
}
"""What the source alone shows: other packages, and helpers of the course's."""

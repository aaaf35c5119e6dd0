"""With the answer taken out of PyTorch no way leads to it, and what is honest still works."""

import json
import subprocess
import sys
import textwrap
from functools import cache

import pytest

from autograder.checks import register
from autograder.doubts import take_out_call, to_take_out
from autograder.forbidden import TABLE

CLOSED = [check for check in register().checks.values() if check.instead]
CALLS = {
    "torch.softmax": "torch.softmax(x, -1)",
    "a method": "x.softmax(-1)",
    "F": "F.softmax(x, -1)",
    "a module": "nn.Softmax(-1)(x)",
    "an operator": "torch.ops.aten.softmax(x, -1)",
    "an operator below": "torch.ops.aten._softmax(x, -1, False)",
    "a script": "torch.jit.script(F.softmax)(x, -1)",
    "compiled": "torch.compile(F.softmax, backend='eager')(x, -1)",
    "torch._C": "torch._C._VariableFunctions.softmax(x, -1)",
    "torch._refs": "torch._refs.softmax(x, -1)",
    "torch._decomp": "torch._decomp.decompositions._softmax(x, -1, False)",
    "vmap": "torch.func.vmap(lambda row: torch.softmax(row, -1))(x)",
    "vmap of the function": "torch.func.vmap(torch.softmax, in_dims=(0, None))(x, -1)",
    "inference": "torch.inference_mode()(torch.softmax)(x, -1)",
    "mkldnn": "x.detach().to_mkldnn().softmax(-1).to_dense()",
    "nested": "torch.softmax(torch.nested.nested_tensor([x[0].detach()]), -1).to_padded_tensor(0.0)",
    "sparse": "torch.sparse.softmax(x.detach().to_sparse(), -1).to_dense()",
    "masked": "torch.masked.softmax(x, -1)",
    "gumbel": "F.gumbel_softmax(x)",
    "categorical": "torch.distributions.Categorical(logits=x).probs",
    "out": "torch.softmax(x.detach(), -1, out=torch.empty(2, 3))",
    "float64": "x.double().softmax(-1)",
    "bfloat16": "x.bfloat16().softmax(-1)",
    "a thread": "concurrent.futures.ThreadPoolExecutor(1).submit(torch.softmax, x, -1).result()",
    "an own code": "types.FunctionType(F.softmax.__code__.replace(co_filename='mine'), vars(F))(x, -1)",
    "no modes": "without_modes(torch.softmax, x, -1)",
    "log_softmax": "F.log_softmax(x, -1)",
    "attention": "F.scaled_dot_product_attention(x, x, x)",
    "fused attention": "F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])",
    "attention by its parts": "torch._scaled_dot_product_attention_math(x, x, x)[0]",
    "attention for the CPU": "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*3 * [x[None, None]])[0]",
    "flex_attention": "flex(*3 * [x.detach()[None, None]])",
    "multi-head": "nn.MultiheadAttention(3, 1)(x, x, x)[0]",
    "layer_norm": "F.layer_norm(x, (3,))",
    "nn.LayerNorm": "nn.LayerNorm(3)(x)",
    "group_norm": "F.group_norm(x, 1)",
    "batch_norm": "F.batch_norm(x.T, None, None, training=True)",
    "instance_norm": "F.instance_norm(x[None])",
    "layer_norm of _refs": "torch._refs.nn.functional.layer_norm(x, (3,))",
    "rms_norm": "F.rms_norm(x, (3,))",
    "gelu": "F.gelu(x)",
    "nn.GELU": "nn.GELU('tanh')(x)",
    "gelu of _C": "torch._C._nn.gelu(x)",
    "gelu in place": "torch._C._nn.gelu_(x.detach().clone())",
    "gelu of _refs": "torch._refs.nn.functional.gelu(x)",
    "silu": "F.silu(x)",
    "cross_entropy": "F.cross_entropy(x, ids)",
    "nn.CrossEntropyLoss": "nn.CrossEntropyLoss()(x, ids)",
    "nll_loss": "F.nll_loss(x, ids)",
    "linear cross-entropy": "nn.LinearCrossEntropyLoss(3, 5)(x, ids)",
    "adaptive": "nn.AdaptiveLogSoftmaxWithLoss(3, 6, [2])(x, ids).loss",
    "AdamW": "torch.optim.AdamW([p]).step()",
    "Adam": "torch.optim.Adam([p]).step()",
    "NAdam": "torch.optim.NAdam([p]).step()",
    "one tensor": "sys.modules['torch.optim.adam']._single_tensor_adam([p], [p.grad], [p], [p], [], [p])",
    "functional": "sys.modules['torch.optim.adamw'].adamw([p], [p.grad], [p], [p], [], [p])",
    "clip": "nn.utils.clip_grad_norm_([p], 1.0)",
    "a scripted clip": "torch.jit.script(nn.utils.clip_grad_norm_)([p], 1.0)",
    "total norm": "nn.utils.get_total_norm([p.grad])",
    "encoder": "nn.TransformerEncoderLayer(4, 2, 8)(torch.randn(1, 2, 4))",
    "decoder": "nn.TransformerDecoderLayer(4, 2, 8)(*2 * [torch.randn(1, 2, 4)])",
    "transformer": "nn.Transformer(4, 2, 1, 1, 8)(*2 * [torch.randn(1, 2, 4)])",
    "a mask": "nn.Transformer.generate_square_subsequent_mask(3)",
    "normalize": "F.normalize(x)",
    "cosine": "F.cosine_similarity(x, x)",
    "normal": "torch.distributions.Normal(0.0, 1.0).cdf(x)",
    "transformers": "importlib.import_module('transformers')",
    "tokenizers": "importlib.import_module('tokenizers').models",
    "sklearn": "importlib.import_module('sklearn.metrics')",
    "scipy": "importlib.import_module('scipy.special')",
}
HONEST = """
x = torch.randn(8, 3)
model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
losses = []
for _ in range(50):
    loss = (model(x) - 1).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(float(loss))
assert losses[-1] < losses[0]
assert torch.allclose(torch.exp(x - x.logsumexp(-1, keepdim=True)).sum(-1), torch.ones(8))
nn.init.xavier_uniform_(torch.empty(3, 3)), torch.einsum("ij,kj->ik", x, x), torch.func.grad(lambda y: y.sum())(x)
torch.save(model.state_dict(), __import__("io").BytesIO())
assert __import__("importlib.util").util.find_spec("transformers") is not None  # PyTorch asks, and imports nothing
"""
SCRIPT = """
import concurrent.futures, importlib, json, sys, types, warnings
warnings.simplefilter("ignore")
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention as flex
from torch.utils._python_dispatch import _disable_current_modes
CALL
x, ids = torch.randn(2, 3, requires_grad=True), torch.tensor([0, 1])
p = nn.Parameter(torch.ones(3))
p.grad = torch.full((3,), 9.0)
def without_modes(function, *args):
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        return function(*args)
found = {}
for name, call in json.loads(sys.stdin.read()).items():
    try:
        result = eval(call)
        lost = isinstance(result, torch.Tensor) and bool(result.isnan().all())
        found[name] = "nan" if lost else f"gives {result}"
    except Exception as error:
        found[name] = "raises"
exec(HONEST)
print(json.dumps(found))
"""
JUDGE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from autograder.checks import find
from autograder.judge import in_process, judge
names = json.loads(sys.stdin.read())
checks = [find(name) for name in names]
CALL
lost = []
for check in checks:
    for name, target in [("reference", check.reference), *((one.name, one.target) for one in check.variants)]:
        result = judge(check, in_process(target, watch=False), graded=True, explain=False)
        lost += [] if result.points == result.max_points else [f"{check.name}: {name}: {result.points}"]
print(json.dumps(lost))
"""


def run(code: str, given: object) -> str:
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@cache
def outcomes() -> dict[str, str]:
    """What became of each call once all families are taken out."""
    call = f"import autograder.take_out\nautograder.take_out.take_out({list(TABLE)!r})\nHONEST = {HONEST!r}"
    found: dict[str, str] = json.loads(run(SCRIPT.replace("CALL", call), CALLS))
    return found


class TestTakenOut:
    @pytest.mark.parametrize("name", CALLS)
    def test_no_way_leads_to_it(self, name: str) -> None:
        """Training and all that is honest goes on working beside it, which the same script asserts."""
        assert outcomes()[name] in ("nan", "raises")

    def test_without_taking_out_each_gives_something(self) -> None:
        """Else a call that was misspelt would pass for taken out."""
        heavy = {"transformers", "tokenizers", "sklearn", "scipy"}
        calls = {name: call for name, call in CALLS.items() if name not in heavy}
        found = json.loads(run(SCRIPT.replace("CALL", "HONEST = ''"), calls))
        calls_for_nothing = {"an own code", "one tensor", "functional", "a scripted clip", "mkldnn", "nested"}
        assert {name for name, what in found.items() if what in ("nan", "raises")} <= calls_for_nothing

    def test_the_source_of_the_call_is_an_expression(self) -> None:
        for check in CLOSED:
            compile(take_out_call(check), "cell", "eval")
            assert set(check.forbidden) <= set(to_take_out(check))


@pytest.mark.slow
@pytest.mark.parametrize("builds_on", sorted({check.builds_on for check in CLOSED}), ids=" ".join)
def test_what_is_right_earns_all_points_without_it(builds_on: tuple[str, ...]) -> None:
    checks = [check for check in CLOSED if check.builds_on == builds_on]
    code = JUDGE.replace("CALL", textwrap.dedent(f"eval({take_out_call(checks[0])!r})"))
    assert json.loads(run(code, [check.name for check in checks])) == []

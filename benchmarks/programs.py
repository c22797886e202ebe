"""Check training steps of models of transformers and torchvision's kind, right as they are: none may be called wrong.

Run: python benchmarks/programs.py [--seeds 20], after pip install transformers
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import lntx

_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 61,
}
_SHARED = {**_SMALL, "num_key_value_heads": 2}


def _models() -> dict[str, tuple[Callable[[], torch.nn.Module], bool]]:
    """Return what makes each model, and whether it is causal."""
    import transformers as hf

    return {
        "Llama": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_SHARED)), True),
        "Qwen2": (lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_SHARED, tie_word_embeddings=True)), True),
        "GPT-2": (lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=61)), True),
        "BERT": (lambda: hf.BertForMaskedLM(hf.BertConfig(**_SMALL)), False),
        "RoBERTa": (lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**_SMALL)), False),
    }


def main() -> int:
    """Print a line for each model and format; exit code 1 if a right program was called wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    alarms = 0
    for name, (make, causal) in _models().items():
        for autocast in (False, True):
            reasons, costs, start = [], [], time.monotonic()
            for seed in range(options.seeds):
                torch.manual_seed(seed)
                model = make().train()
                tokens = torch.randint(2, 61, (4, 12))
                keep = torch.ones_like(tokens)
                keep[1, 9:] = 0
                batch = {"tokens": tokens, "keep": keep}

                def loss(model: Any, batch: Any) -> torch.Tensor:
                    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):  # noqa: B023
                        logits = model(input_ids=batch["tokens"], attention_mask=batch["keep"]).logits
                    shifted, labels = logits[:, :-1].float(), batch["tokens"][:, 1:]
                    return torch.nn.functional.cross_entropy(shifted.reshape(-1, 61), labels.reshape(-1))

                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
                proof = lntx.check_program(model, batch, loss, optimizer, causal=causal, mask="keep")
                costs.append(sum(check.seconds for check in proof.checks) / proof.seconds_of_step)
                reasons += [] if proof.passed else [f"seed {seed}: {proof.reason}"]
                unclear = [f"{check.name}: {check.what}" for check in proof.checks if check.passed is None]
            alarms += len(reasons)
            kind = "autocast" if autocast else "float32"
            right = f"{options.seeds - len(reasons)} of {options.seeds} right"
            cost = f"{sorted(costs)[len(costs) // 2]:.0f} times a step, {time.monotonic() - start:.0f} s"
            print(f"{name:<10}{kind:<10}{right}, {cost}  {'; '.join(unclear)[:200]}", flush=True)
            for reason in reasons[:2]:
                print(f"    {reason[:300]}")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())

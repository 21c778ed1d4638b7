"""GPU memory that sampling with vLLM takes: what is left for keys and values, and how many answers that holds at once.

Weights and keys and values follow from the architecture. What vLLM needs beside them (activations of its largest step,
CUDA graphs, NCCL) it measures when it starts; here it is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.sizing.architecture import Architecture
from training.sizing.train_memory import Lengths

GIB = 2**30
#: Assumed, a card; 2 to 8 GiB with the size of images and of the vocabulary.
BESIDE = 4 * GIB
#: Images that vLLM keeps the features of, in tokens: ``max_num_batched_tokens`` of an engine that is told no other.
ENCODER_TOKENS = 2048
#: Weights, keys and values in bfloat16.
_SIZE = 2


@dataclass(frozen=True, slots=True)
class SampleMemory:
    """Bytes on each card. ``cache`` is left for keys and values, at least 0, of which a token takes ``per_token``;
    ``answers`` fit into it at once."""

    weights: int
    encoder: int
    cache: int
    per_token: int
    answers: int


def sample_memory(
    shape: Architecture, card: int, parallel: int, lengths: Lengths, n: int = 8, utilization: float = 0.9
) -> SampleMemory:
    """On a ``card`` of so many bytes, one of ``parallel`` that hold the model together (``tensor_parallel_size``).

    The ``n`` answers of a request share the keys and values of its prompt. Cards that are more than the heads of keys
    hold each of these several times.
    """
    weights = -(-shape.parameters // parallel) * _SIZE
    encoder = max(ENCODER_TOKENS, lengths.prompt) * shape.width * _SIZE
    per_token = 2 * shape.layers * max(1, shape.kv_heads // parallel) * shape.head_width * _SIZE
    cache = max(0, int(card * utilization) - weights - encoder - BESIDE)
    requests = cache // per_token / (lengths.prompt + n * lengths.answer)
    return SampleMemory(weights, encoder, cache, per_token, int(requests * n))


def can_split(shape: Architecture, parallel: int) -> bool:
    """Whether vLLM can divide the heads among so many cards."""
    heads = shape.kv_heads
    return shape.heads % parallel == 0 and (heads % parallel == 0 or parallel % heads == 0)

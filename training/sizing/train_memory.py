"""GPU memory that training takes on each worker: the formula of docs/gpu.md, for the trainer as it is.

Symbols, in bytes where nothing else is said: T parameters that move; s the size of a number in the forward passes (2 in
bfloat16, else 4); N tokens of a pass, every group's common prefix once; E response tokens of a pass; L layers; H width;
F width of the feed-forward part; Q, K widths of queries and of keys; V vocabulary. Tower and projector are taken to be
frozen: what they compute leaves before the language model begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.config import TrainOptions
from training.data.schedule import weight_of
from training.forward.batch import branch_groups
from training.sizing.architecture import Architecture, Linear

#: Bytes of a weight in NF4 with double quantisation: 4 bits, 8 bits for each 64 weights, a float32 for each 64 x 256.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
#: AdamW: two moments in float32 beside a gradient in float32, whatever the dtype of the forward passes.
MOMENTS = 8
#: Beside what the backward pass of a layer keeps, gradients of the feed-forward part (times F) and of the residual
#: stream (times H), in numbers of the dtype; measured by following every tensor of a layer (bfloat16, LoRA).
BACKWARD = (3, 6)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a prompt, its image's included, and of each answer."""

    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class TrainMemory:
    """Bytes on each worker. ``weights``, ``gradients`` and ``moments`` are there all the time; of ``forward``,
    ``backward`` and ``step``, what is there at most in each, only one is at a time."""

    weights: int
    gradients: int
    moments: int
    forward: int
    backward: int
    step: int

    @property
    def passing(self) -> int:
        """What comes and goes, at most."""
        return max(self.forward, self.backward, self.step)

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.passing


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass: N ``tokens``, E ``answers``, and tokens whose keys and values are kept ``again``, as further
    branches of a group have those of their trunk beside their own."""

    tokens: int
    answers: int
    again: int


def train_memory(shape: Architecture, options: TrainOptions, lengths: Lengths) -> TrainMemory:
    """``pass_memory`` with passes of ``options.pass_pairs`` pairs, all of these ``lengths``."""
    return pass_memory(shape, options, largest_pass(options, lengths))


def pass_memory(shape: Architecture, options: TrainOptions, run: Pass) -> TrainMemory:
    """Where ``run`` is the largest pass, on one of ``options.processes``.

    What CUDA itself takes (about 0.5 GiB) and what the allocator holds without need are not in it. Activations of a
    tower that moves are not, either.
    """
    lora, sharded = options.tuning == "lora", options.sharding == "fsdp" and options.processes > 1
    size = 2 if options.precision == "bfloat16" else 4
    share = options.processes if sharded else 1
    moving = _moving(shape, options)
    # Tower and projector are whole on every worker; adapters are split with the layers that they are in.
    base = shape.parameters - shape.split + -(-shape.split // share)
    here = -(-moving // share) if lora else base - (shape.parameters - moving)
    head = shape.vocabulary * shape.width

    layer = layer_bytes(shape, options, run)
    per_layer = run.tokens * shape.width * (size if lora else 4) if options.gradient_checkpointing is True else layer
    # Weights that move are cast for the passes; FSDP gathers casts, of one layer and the next.
    casts = 2 * moving if size == 2 and not sharded else 0
    gathered = 2 * shape.decoder * size if sharded else 0
    whole_head = head * size if sharded else 0
    rows = run.answers if sharded else min(run.answers, options.head_chunk or run.answers)
    last_norm = run.tokens * shape.width * (4 if lora else 8)

    kept = shape.layers * per_layer
    forward = casts + last_norm + rows * shape.vocabulary * (size + 8) + max(gathered, whole_head)
    logits = last_norm + rows * shape.vocabulary * 12 + whole_head + (0 if lora else head * (size + 4))
    decoder = run.tokens * size * (BACKWARD[0] * shape.feed_forward + BACKWARD[1] * shape.width) + gathered
    if options.gradient_checkpointing is True:
        decoder += layer + casts // shape.layers
        casts = 0
    if sharded and not lora:  # gradients of two layers before they are added up over the workers
        decoder += 2 * shape.decoder * (size + 4)
    largest = max(head, *(linear.weights for linear in shape.linears))
    return TrainMemory(
        weights=_weights(shape, options, base, size) + (4 * here if lora else 0),
        gradients=4 * here,
        moments=MOMENTS * here,
        forward=kept + forward,
        backward=kept + casts + max(logits, decoder),
        # A root for each number that moves, all tensors at once; split tensors one after the other.
        step=4 * (-(-largest // share) if sharded else here),
    )


def _moving(shape: Architecture, options: TrainOptions) -> int:
    """T, over all workers."""
    if options.tuning == "lora":
        return shape.adapters(options.lora.r, options.lora.target_modules)
    frozen = (shape.tower if options.freeze_vision else 0) + (shape.projector if options.freeze_projector else 0)
    return shape.parameters - frozen


def _weights(shape: Architecture, options: TrainOptions, base: int, size: int) -> int:
    """Of the model itself, of which ``base`` parameters are here, and of its frozen copy where there is one."""
    if options.quantization is not None:
        linears = shape.layers * sum(linear.weights for linear in shape.linears)
        return round(linears * NF4) + (base - linears) * size
    if options.tuning == "lora":
        return base * size
    return 4 * (base if options.cache_reference else base + shape.parameters)


def largest_pass(options: TrainOptions, lengths: Lengths) -> Pass:
    """Of ``options.pass_pairs`` pairs, which count as their weights (``training.data.schedule``)."""
    each = [len(members) for _, members in branch_groups(options.branches, options.share_prefix)]
    pair = pass_of([(lengths.prompt, [lengths.answer] * members) for members in each], options.share_prefix)
    counted = len(each) * lengths.prompt + sum(each) * lengths.answer
    pairs = max(1, int(options.pass_pairs / weight_of(options, counted, lengths.prompt, 2 * lengths.answer)))
    return Pass(pairs * pair.tokens, pairs * pair.answers, pairs * pair.again)


def pass_of(groups: Sequence[tuple[int, Sequence[int]]], share_prefix: bool) -> Pass:
    """Of these groups: tokens of the prompt, and of each answer to it. The last token of a sequence predicts nothing
    and is left out where prefixes are shared.

    >>> pass_of([(600, [101, 51])], share_prefix=True)
    Pass(tokens=750, answers=152, again=650)
    """
    left_out = int(share_prefix)
    return Pass(
        tokens=sum(prompt + sum(answers) - left_out * len(answers) for prompt, answers in groups),
        answers=sum(sum(answers) for _, answers in groups),
        again=sum(prompt + answer - left_out for prompt, answers in groups for answer in answers[1:]),
    )


def layer_bytes(shape: Architecture, options: TrainOptions, run: Pass) -> int:
    """What a decoder layer keeps for its backward pass.

    Norms keep their input in float32, and what they scale where the scale moves. A linear layer whose weights move
    keeps its input, in bfloat16 each a cast of its own; otherwise those that read the same share it. Attention keeps
    queries, keys, values, its output and a float32 a head; the feed-forward part three tensors: in and out of the
    activation, and what it is multiplied with.
    """
    lora = options.tuning == "lora"
    size = 2 if options.precision == "bfloat16" else 4
    norms = shape.norms * (4 if lora else 8) + shape.head_norms * (4 if lora else 4 + size)
    moving = shape.adapted(options.lora.target_modules) if lora else shape.linears
    inputs = {_input(linear) if size == 4 else linear.name: linear.inputs for linear in moving}
    ranks = len(moving) * options.lora.r if lora else 0
    attention = 2 * (shape.queries + shape.keys) * size + 4 * shape.heads
    numbers = sum(inputs.values()) + ranks + 3 * shape.feed_forward
    return run.tokens * (norms + attention + numbers * size) + run.again * 2 * shape.keys * size


def _input(linear: Linear) -> str:
    """Linear layers of the same value read the same tensor."""
    if linear.name in ("q_proj", "k_proj", "v_proj"):
        return "attention"
    return "feed_forward" if linear.name in ("gate_proj", "up_proj") else linear.name

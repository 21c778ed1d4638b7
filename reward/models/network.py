"""One number for a conversation: a backbone, and the head that reads its hidden states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reward.forward.grouped import GroupedBatch
from reward.forward.shareable import enable, why_not
from reward.forward.token_logps import Forward, token_states
from reward.models.conversation_reader import Reader
from reward.models.reward_checkpoint import Checkpoint, find


class LinearHead(nn.Linear):
    """weight [1, H] and bias [1], float32: TRL's ``ValueHead`` without its dropout. Zero at first."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, dtype=torch.float32)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, last: Tensor, answer: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Hidden states [B, H] of the last tokens to rewards [B]."""
        # Out of autocast: rewards of long conversations differ in digits that bfloat16 does not have.
        with torch.autocast(last.device.type, enabled=False):
            return super().forward(last.float()).squeeze(-1)


class GatingHead(nn.Module):
    """ArmoRM (Wang et al. 2024, arXiv 2406.12845): K objectives read at the last token, made independent of length by
    a matrix, weighted by a gate that reads the state of the first token after the prompt.

    ``weights`` are its tensors by the names of the released checkpoint: ``regression_layer.weight`` [K, H],
    ``reward_transform_matrix`` [K, K], ``gating.layers.N.weight|bias``, ``gating.logit_scale`` [1].
    """

    def __init__(self, weights: dict[str, Tensor], temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        for name, tensor in weights.items():
            self.register_buffer(name.replace(".", "__"), tensor.float())
        self.layers = sum(name.startswith("gating.layers.") and name.endswith(".weight") for name in weights)

    def _tensor(self, name: str) -> Tensor:
        tensor: Tensor = getattr(self, name.replace(".", "__"))
        return tensor

    def forward(self, last: Tensor, answer: Tensor) -> Tensor:
        gate = answer.float()
        for i in range(self.layers):
            gate = nn.functional.linear(
                gate, self._tensor(f"gating.layers.{i}.weight"), self._tensor(f"gating.layers.{i}.bias")
            )
            gate = gate.relu() if i < self.layers - 1 else gate
        gate = (gate / self.temperature).softmax(dim=-1) * self._tensor("gating.logit_scale")
        objectives = last.float() @ self._tensor("regression_layer.weight").T
        return (gate * (objectives @ self._tensor("reward_transform_matrix"))).sum(dim=-1)


class RewardNetwork(nn.Module):
    """``whole`` is the transformers model or ``PeftModel`` that is saved and moved; its backbone is what runs."""

    def __init__(self, whole: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.whole, self.head = whole, head

    def forward(self, tensors: dict[str, Tensor], last: Tensor, answer: Tensor) -> Tensor:
        """Rewards, float32 [B]; arguments as in ``reward.models.conversation_reader.Inputs``."""
        hidden = backbone(self.whole)(**tensors).last_hidden_state
        rows = torch.arange(len(last), device=hidden.device)
        rewards: Tensor = self.head(hidden[rows, last], hidden[rows, answer])
        return rewards


def can_pack(network: nn.Module) -> bool:
    """Whether ``packed_rewards`` can run the network, which is then made ready for it."""
    if not isinstance(network, RewardNetwork) or not isinstance(network.head, LinearHead):
        return False
    if why_not(network.whole) is not None:
        return False
    enable(network.whole)
    return True


def packed_rewards(network: nn.Module, batch: GroupedBatch) -> Tensor:
    """The rewards of all sequences, float32 [S]: of the state that the last token of each would be predicted from."""
    whole: Any = network.whole
    layout, states = token_states(whole, batch, Forward(dtype=next(whole.parameters()).dtype))
    ends = layout.owners.bincount(minlength=layout.sequences).cumsum(0) - 1
    last = layout.read[layout.entries[ends]].to(states.device)
    rewards: Tensor = network.head(states[last])  # type: ignore[operator]
    return rewards


class ClassifierNetwork(nn.Module):
    """A ``...ForSequenceClassification`` as it is: its own forward pass knows which token it was trained on."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, tensors: dict[str, Tensor], last: Tensor, answer: Tensor) -> Tensor:
        return self.whole(**tensors).logits[:, 0].float()


def backbone(whole: Any) -> Any:
    """The part of a transformers model, or of one inside a ``PeftModel``, that gives hidden states."""
    inner = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    return getattr(inner, "model", inner)


def open_network(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[nn.Module, Reader, int | None]:
    """The network in evaluation mode on the CPU, its reader, and the largest batch it takes (None for any).

    Weights are read from safetensors, and no code of a checkpoint is run.

    Raises:
        ValueError: it cannot be loaded, or would have a head of random numbers.
    """
    if checkpoint.kind == "classifier":
        return _open_classifier(checkpoint, dtype)
    whole, reader = open_backbone(checkpoint.backbone, checkpoint.sees, dtype, checkpoint.hub)
    if checkpoint.kind == "adapter":
        from peft import PeftModel

        whole = PeftModel.from_pretrained(whole, checkpoint.model)
    reader.answers = checkpoint.kind == "gating"
    head = _gating_head(checkpoint) if checkpoint.kind == "gating" else _linear_head(checkpoint, width(whole))
    return RewardNetwork(whole, head).eval(), reader, None


def open_backbone(name: str, sees: bool, dtype: torch.dtype, hub: dict[str, str]) -> tuple[Any, Reader]:
    """A language model, vision-language if it has a processor for images, and what reads for it."""
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )

    def load() -> tuple[Any, Any]:
        config = AutoConfig.from_pretrained(name, **hub)
        if "vision_config" in config.to_dict():
            model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, use_safetensors=True, **hub)
            return model, AutoProcessor.from_pretrained(name, **hub)
        # A checkpoint with a head of its own (ArmoRM) is read for its backbone; others are saved whole.
        causal = (config.architectures or [""])[0].endswith("ForCausalLM")
        cls = AutoModelForCausalLM if causal else AutoModel
        model = cls.from_pretrained(name, dtype=dtype, use_safetensors=True, **hub)
        return model, AutoTokenizer.from_pretrained(name, **hub)

    model, processor = _load(name, load)
    return model, Reader(processor, sees, _positions(model, processor))


def width(whole: Any) -> int:
    """H of the hidden states."""
    inner = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    size: int = inner.config.get_text_config().hidden_size
    return size


def _open_classifier(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[nn.Module, Reader, int | None]:
    from transformers import AutoModelForSequenceClassification, AutoProcessor, AutoTokenizer

    name = checkpoint.backbone

    def load() -> tuple[Any, Any]:
        opened = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=dtype, use_safetensors=True, output_loading_info=True, **checkpoint.hub
        )
        reader = AutoProcessor if checkpoint.sees else AutoTokenizer
        return opened, reader.from_pretrained(name, **checkpoint.hub)

    (model, report), processor = _load(name, load)
    if report["missing_keys"]:
        lost = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"model={name!r} has no weights for {lost}; they would be random, give a trained reward model")
    if model.config.num_labels != 1:
        raise ValueError(f"model={name!r} has {model.config.num_labels} labels; a reward model has 1")
    # transformers takes a batch only if it knows what padding is; a token made up here might end a conversation.
    single = model.config.get_text_config().pad_token_id is None
    return (
        ClassifierNetwork(model).eval(),
        Reader(processor, checkpoint.sees, _positions(model, processor)),
        1 if single else None,
    )


def _load(name: str, load: Any) -> tuple[Any, Any]:
    try:
        model, processor = load()
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, ... for the same causes
        raise ValueError(f"model={name!r} cannot be loaded ({type(error).__name__}: {error})") from error
    return model, processor


def _positions(model: Any, processor: Any) -> int | None:
    tokenizer = getattr(processor, "tokenizer", processor)
    limits = (getattr(model.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length)
    return min((int(limit) for limit in limits if limit is not None), default=None)


def _linear_head(checkpoint: Checkpoint, size: int) -> LinearHead:
    from safetensors.torch import load_file

    assert checkpoint.head is not None
    # TRL writes v_head.summary.weight, or without the model's prefix summary.weight.
    weights = {name.rpartition(".")[2]: tensor for name, tensor in load_file(checkpoint.head).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != {"weight": (1, size), "bias": (1,)}:
        raise ValueError(f"{checkpoint.head}: holds {shapes}; wanted are weight (1, {size}) and bias (1,)")
    head = LinearHead(size)
    head.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return head


def _gating_head(checkpoint: Checkpoint) -> GatingHead:
    import json

    from safetensors import safe_open

    index = find(checkpoint.model, "model.safetensors.index.json", checkpoint.revision)
    places = json.loads(index.read_text())["weight_map"] if index else {}
    wanted = ("regression_layer.", "reward_transform_matrix", "gating.")
    weights: dict[str, Tensor] = {}
    files = sorted({file for name, file in places.items() if name.startswith(wanted)}) or ["model.safetensors"]
    for name in files:
        path = find(checkpoint.model, name, checkpoint.revision)
        if path is None:
            raise ValueError(f"model={checkpoint.model!r} lacks {name}")
        with safe_open(path, framework="pt") as file:
            weights |= {key: file.get_tensor(key) for key in file.keys() if key.startswith(wanted)}  # noqa: SIM118
    needed = {"regression_layer.weight", "reward_transform_matrix", "gating.logit_scale", "gating.layers.0.weight"}
    if missing := sorted(needed - set(weights)):
        raise ValueError(f"model={checkpoint.model!r} has no {', '.join(missing)}, which ArmoRM's head consists of")
    return GatingHead(weights, float(checkpoint.config.get("gating_temperature", 10)))

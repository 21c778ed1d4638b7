"""A training run as typed, frozen data.

The defaults are the published mDPO settings (arXiv 2406.11839, section 4 and the authors' configuration file). Imports
no torch. ``training.config.load`` reads one from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from training.config.base import Count, Decay, Fraction, Frozen, Name, NonNegative, Positive, Real, Seed
from training.config.draw import Draw
from training.config.objective import Anchor, Corruption, LossType, Sft, Weights
from training.config.tuning import Lora

__all__ = ["RESULT_NEUTRAL", "TERMS", "Corruption", "Draw", "Lora", "Sft", "TrainConfig", "Weights"]


#: What each objective trains on, each term with its weight of ``weights``.
TERMS: Mapping[str, tuple[str, ...]] = {
    "dpo": ("response",),
    "mdpo": ("response", "image", "anchor"),
    "symmpo": ("response", "symmetric", "anchor", "margin"),
}


class TrainConfig(Frozen):
    """One run of preference training. Sizes count preference pairs, not sequences."""

    # What
    model: Name = Field(description="folder, built-in name or hub id of where to start, which is also the reference")
    model_revision: str | None = None
    dataset: Name = Field(description="folder or hub name of a dataset of pairs, in any schema of training.formats")
    dataset_format: str | None = Field(None, description="a name of training.formats; default: told by the columns")
    dataset_split: str | None = Field(None, description="default: train")
    image_root: str | None = Field(
        None, description="what image paths are relative to and may not leave; default: the dataset's folder"
    )
    allowed_roots: tuple[str, ...] = Field((), description="further folders or URLs that image paths may lead into")
    allow_http: bool = Field(False, description="follow http(s) addresses in rows, to wherever they lead")
    max_image_bytes: Count = 50_000_000
    max_image_pixels: Count = 100_000_000
    output_dir: Path
    trust_remote_code: bool = False
    add_bos: Literal["auto", "never"] = Field(
        "auto",
        description="begin prompts as vLLM does when it samples, with the begin-of-text token of tokenizers that add "
        "one; never: what the chat template wrote and no more, as TRL",
    )

    # Objective
    objective: Literal["dpo", "mdpo", "symmpo"] = "mdpo"
    loss_type: tuple[LossType, ...] = Field(("sigmoid",), description="of the response term; several are summed")
    loss_weights: tuple[NonNegative, ...] | None = Field(None, description="one per loss_type; default: 1 each")
    label_smoothing: Real = Field(0.0, ge=0, lt=0.5, description="share of flipped labels that `robust` assumes")
    beta: Positive = 0.1
    weights: Weights = Weights()
    anchors: tuple[Anchor, ...] = ("chosen",)
    anchor_delta: Real = 0.0
    corruption: Corruption = Corruption()
    probe_image: bool = Field(False, description="with dpo: also measure the chosen answer on the corrupted image")
    use_images: bool = Field(True, description="false: the text alone (the control of mDPO's section 2)")
    sft: Sft | None = None
    draw: Draw | None = Field(None, description="train on some pairs of each prompt; default: on all")
    limit: Count | None = Field(None, description="pairs to train on, before draw; fewer are among more")

    # Optimisation
    learning_rate: Positive = 1e-5
    vision_learning_rate: Positive | None = Field(None, description="of an unfrozen tower; default: learning_rate")
    projector_learning_rate: Positive | None = Field(None, description="of the projector; default: learning_rate")
    epochs: Count = 3
    max_steps: Count | None = None
    batch_size: Count = Field(32, description="pairs per optimiser step, over all workers")
    micro_batch_size: Count = Field(4, description="pairs per forward pass and worker, at most")
    max_tokens_per_batch: Count | None = Field(
        None, description="tokens per forward pass and worker, at most; a longer pair goes alone"
    )
    warmup_ratio: Fraction = 0.1
    weight_decay: NonNegative = 0.05
    adam_betas: tuple[Decay, Decay] = (0.9, 0.98)
    adam_epsilon: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    seed: Seed = 0

    # What moves
    tuning: Literal["full", "lora"] = "lora"
    quantization: Literal["nf4"] | None = Field(None, description="QLoRA: frozen weights in 4 bits (needs a GPU)")
    lora: Lora = Lora()
    freeze_vision: bool = True
    freeze_projector: bool = True

    # Long rows
    max_length: Count | None = Field(None, description="tokens of prompt and response; default: the model's positions")
    too_long: Literal["error", "cut", "skip"] = Field(
        "error", description="cut takes response tokens only: the prompt and its image tokens are never cut"
    )

    # Ties
    ties: Literal["error", "skip"] = Field(
        "error", description="rows whose two answers are the same text: skip leaves them out and counts them"
    )

    # Evaluation while training
    eval_dataset: Name | None = Field(None, description="held-out pairs, in the schema of the dataset")
    eval_split: str | None = Field(None, description="default: train")
    eval_steps: Count = 50
    patience: Count | None = Field(
        None, description="stop after this many evaluations without a lower loss, and keep the best weights"
    )

    # How it runs
    workers: Count = Field(1, description="processes, a GPU each where there are GPUs; not read under torchrun")
    sharding: Literal["ddp", "fsdp"] = Field("ddp", description="fsdp splits the language model over the workers")
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    share_prefix: bool = Field(True, description="run prompt and image once for all answers of a pair")
    share_image_features: bool = Field(True, description="run the vision tower once per distinct image of a batch")
    cache_image_features: bool = Field(False, description="keep features between batches while memory lasts")
    cache_reference: bool = Field(True, description="compute the reference once and keep it beside the run")
    group_by_length: bool = Field(True, description="pairs of like length share a forward pass")
    head_on_responses: bool = Field(True, description="language-model head on response positions only")
    last_layer_on_responses: bool = Field(True, description="the last decoder layer on response positions only")
    head_chunk: Count | None = Field(
        4096, description="response tokens per pass through the language-model head; with fsdp always all"
    )
    logging_steps: Count = 10
    save_steps: Count = 100
    resume: Literal["never", "if-possible", "always"] = Field(
        "always",
        description="a run of other options, rows or weights in output_dir: always refuses it, if-possible trains anew "
        "and says so; never trains anew whatever is there. true is always, false is never",
    )
    wandb_project: Name | None = Field(None, description="also log to Weights & Biases, with the key that it knows")

    @field_validator("resume", mode="before")
    @classmethod
    def _said(cls, value: Any) -> Any:
        return {True: "always", False: "never"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        problems = tuple(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> list[str]:
        found = []
        if self.micro_batch_size > self.batch_size:
            found.append(
                f"micro_batch_size={self.micro_batch_size} is larger than batch_size={self.batch_size}; lower it"
            )
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            found.append(
                f"loss_weights has {len(self.loss_weights)} value(s) for {len(self.loss_type)} loss_type(s); "
                "give one each"
            )
        if len(set(self.loss_type)) < len(self.loss_type):
            found.append("loss_type names one twice, which would count it twice; name each once, or use loss_weights")
        if not self._learns():
            terms = [f"weights.{term}" for term in TERMS[self.objective]]
            found.append(
                f"objective={self.objective} trains on nothing: every loss has weight 0; raise one of "
                f"{', '.join(terms)}" + (" (the response's also by loss_weights)" if self.loss_weights else "")
            )
        if str(self.output_dir) == ".":
            found.append("output_dir is empty or the working directory, whose model/ would be replaced; name a folder")
        if (self.output_dir / "model").resolve() == Path(self.model).resolve():
            found.append(
                f"model={self.model} lies where the trained model goes; name another output_dir than {self.output_dir}"
            )
        for part, frozen in (("vision", self.freeze_vision), ("projector", self.freeze_projector)):
            if frozen and getattr(self, f"{part}_learning_rate") is not None:
                found.append(
                    f"{part}_learning_rate is for what moves, and freeze_{part}=true; set freeze_{part}=false with "
                    f"tuning=full, or take {part}_learning_rate out"
                )
        if not self.loss_type:
            found.append('loss_type is empty; name at least one, for instance ["sigmoid"]')
        if self.tuning == "lora" and not (self.freeze_vision and self.freeze_projector):
            found.append(
                "tuning=lora trains the language model only; set freeze_vision=true and freeze_projector=true, "
                "or tuning=full"
            )
        if self.quantization and self.tuning != "lora":
            found.append(f"quantization={self.quantization} needs tuning=lora: 4-bit weights cannot be trained")
        if self.quantization and self.sharding == "fsdp":
            found.append(f"quantization={self.quantization} cannot be split; set sharding=ddp, or quantization=null")
        if self.sharding == "fsdp" and self.tuning == "full" and not self.cache_reference:
            found.append(
                "cache_reference=false keeps a whole copy of the model on every worker, which sharding=fsdp is to "
                "avoid; set cache_reference=true, or tuning=lora"
            )
        if self.cache_image_features and not (
            self.share_image_features and self.freeze_vision and self.freeze_projector
        ):
            found.append(
                "cache_image_features=true needs features that never change: set share_image_features=true, "
                "freeze_vision=true and freeze_projector=true, or cache_image_features=false"
            )
        if not self.use_images and self.objective != "dpo":
            found.append(f"use_images=false leaves {self.objective} nothing to compare; use objective=dpo")
        if self.probe_image and not self.use_images:
            found.append("probe_image=true needs images; set use_images=true, or probe_image=false")
        if "corrupted" in self.anchors and self.objective != "mdpo":
            found.append(f"anchors: corrupted needs objective=mdpo, not {self.objective}; take it out")
        if len(set(self.anchors)) < len(self.anchors):
            found.append("anchors names one twice, which would count it twice; name each once")
        if self.patience is not None and self.eval_dataset is None:
            found.append("patience needs evaluations; set eval_dataset, or patience=null")
        if self.corruption.kind == "clip_mask" and self.corruption.clip_model is None:
            found.append("corruption.kind=clip_mask needs corruption.clip_model, for instance scenes-clip")
        return found

    def _learns(self) -> bool:
        """Whether any weight of a loss is above zero."""
        if self.sft is not None and self.sft.weight > 0:
            return True
        given = {
            "response": any(self.loss_weights) if self.loss_weights is not None else True,
            "anchor": bool(self.anchors),
        }
        return any(getattr(self.weights, term) > 0 and given.get(term, True) for term in TERMS[self.objective])

    @property
    def needs_corrupted(self) -> bool:
        """Whether the chosen answer is also read next to the corrupted image."""
        return self.objective == "mdpo" or (self.objective == "dpo" and self.probe_image)

    def result_options(self) -> dict[str, Any]:
        """The options that change the trained weights, as JSON values; a checkpoint of others is not resumed."""
        # Held-out pairs only measure, unless they decide when to stop.
        measured = set() if self.patience is not None else {"eval_dataset", "eval_split", "eval_steps"}
        # Runs from before there was a draw hold.
        unset = {"draw"} if self.draw is None else set()
        return self.model_dump(mode="json", exclude={*RESULT_NEUTRAL, *measured, *unset})


#: Options that leave the trained weights as they are (up to rounding).
RESULT_NEUTRAL = (
    "output_dir",
    "ties",  # with error there are none
    "allowed_roots",
    "allow_http",
    "max_image_bytes",
    "max_image_pixels",
    "trust_remote_code",
    "probe_image",
    "micro_batch_size",
    "max_tokens_per_batch",
    "workers",
    "sharding",
    "gradient_checkpointing",
    "group_by_length",
    "share_prefix",
    "share_image_features",
    "cache_image_features",
    "cache_reference",
    "head_on_responses",
    "last_layer_on_responses",
    "head_chunk",
    "logging_steps",
    "save_steps",
    "resume",
    "wandb_project",
)

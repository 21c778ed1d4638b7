"""The options of a training, wherever its pairs are from. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from pipeline.base.config import (
    AT_HOME,
    NEUTRAL,
    Count,
    DatasetName,
    Decay,
    Fraction,
    Frozen,
    Name,
    NonNegative,
    Positive,
    Real,
    Seed,
    Workers,
    name_or_path,
)
from pipeline.base.hardware import Auto, Dtype
from training.config.draw import Draw
from training.config.objective import (
    OBJECTIVES,
    SIMILAR,
    Addition,
    Anchor,
    Branch,
    Corruption,
    LossType,
    Sft,
    Weights,
    loss_slot,
    objective_slot,
)
from training.config.plugged import SCHEMAS, Slot, schema_slot
from training.config.tuning import Lora

#: Pairs of a forward pass where nobody says, and no GPU's memory.
PASS_PAIRS = 4
#: Options of code that is not ours, which ``TrainOptions.plugins`` says with their defaults.
_OF_OTHERS = ("dataset_format_options", "objective_options", "loss_options")


class TrainOptions(Frozen):
    """Training on the pairs. Sizes count preference pairs, not sequences.

    The defaults are the published mDPO settings (arXiv 2406.11839, section 4 and the authors' configuration file).
    """

    #: Keys of a run on any dataset that a recipe has elsewhere.
    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("dataset", "output_dir"), "remove it: a recipe trains on its own pairs, in its own folder"
    )

    # What
    model: Name | None = Field(
        None, description="folder, built-in name or hub id of where to start; default: the first that is sampled"
    )
    model_revision: str | None = Field(None, description="branch, tag or commit on the hub")
    dataset_format: Annotated[str, name_or_path(SCHEMAS)] | None = Field(None, description="default: by the columns")
    dataset_format_options: dict[str, Any] = Field({}, description="those of a dataset_format that is not ours")
    dataset_split: str | None = Field(None, description="default: train")
    image_root: Annotated[str, AT_HOME] | None = Field(
        None, description="what image paths are relative to and may not leave; default: the dataset's folder"
    )
    allowed_roots: tuple[Annotated[str, AT_HOME], ...] = Field(
        (), description="further folders or URLs that image paths may lead into", json_schema_extra=NEUTRAL
    )
    allow_http: bool = Field(
        False, description="follow http(s) addresses in rows, to wherever they lead", json_schema_extra=NEUTRAL
    )
    max_image_bytes: Count = Field(
        50_000_000, description="bytes of an image file; a larger one is an error", json_schema_extra=NEUTRAL
    )
    max_image_pixels: Count = Field(
        100_000_000, description="pixels of an image; a larger one is an error", json_schema_extra=NEUTRAL
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with the model", json_schema_extra=NEUTRAL
    )
    add_bos: Literal["auto", "never"] = Field(
        "auto",
        description="begin prompts as vLLM does when it samples, with the begin-of-text token of tokenizers that add "
        "one; never: what the chat template wrote and no more, as TRL",
    )

    # Objective
    objective: Annotated[str, name_or_path(tuple(OBJECTIVES))] = Field(
        "mdpo", description="which terms are summed, see weights"
    )
    objective_options: dict[str, Any] = Field({}, description="those of an objective that is not ours")
    loss_type: tuple[Annotated[str, name_or_path(get_args(LossType))], ...] = Field(
        ("sigmoid",), description="of the response term; several are summed"
    )
    loss_options: dict[str, dict[str, Any]] = Field({}, description="those of losses that are not ours, by name")
    loss_weights: tuple[NonNegative, ...] | None = Field(None, description="one per loss_type; default: 1 each")
    label_smoothing: Real = Field(0.0, ge=0, lt=0.5, description="share of flipped labels that `robust` assumes")
    beta: Positive = Field(0.1, description="scale of the implicit reward; larger stays closer to the reference")
    weights: Weights = Field(Weights(), description="of the terms")
    anchors: tuple[Anchor, ...] = Field(
        ("chosen",), description="rewards that the anchor holds: chosen up, others down"
    )
    anchor_delta: Real = Field(0.0, description="reward that anchors hold chosen answers above, and others below")
    corruption: Corruption = Field(Corruption(), description="the rejected image")
    probe_image: bool = Field(
        False,
        description="with dpo: also measure the chosen answer on the corrupted image",
        json_schema_extra=NEUTRAL,
    )
    use_images: bool = Field(True, description="false: the text alone (the control of mDPO's section 2)")
    sft: Sft | None = Field(None, description="a supervised loss on other rows; null: none")
    draw: Draw | None = Field(None, description="train on some pairs of each prompt; default: on all")
    limit: Count | None = Field(None, description="pairs to train on, before draw; fewer are among more")

    # Optimisation
    learning_rate: Positive = Field(1e-5, description="highest one, after the warm-up")
    vision_learning_rate: Positive | None = Field(None, description="of an unfrozen tower; default: learning_rate")
    projector_learning_rate: Positive | None = Field(None, description="of the projector; default: learning_rate")
    epochs: Count = Field(3, description="passes over the pairs")
    max_steps: Count | None = Field(None, description="optimiser steps after which training ends")
    batch_size: Count = Field(32, description="pairs per optimiser step, over all workers")
    micro_batch_size: Count | Auto = Field(
        "auto",
        description="pairs per forward pass and worker, at most: where memory runs out, it goes on with half as many; "
        "auto: as many as fit into the GPU's memory, up to 16, and 4 without a GPU",
        json_schema_extra=NEUTRAL,
    )
    weigh_pairs: bool = Field(
        True,
        description="a pair of more tokens than two sequences, such as mDPO's, counts as more than one of "
        "micro_batch_size, so that a pass takes no more memory than DPO's elsewhere",
        json_schema_extra=NEUTRAL,
    )
    max_tokens_per_batch: Count | None = Field(
        None,
        description="tokens per forward pass and worker, at most; a longer pair goes alone",
        json_schema_extra=NEUTRAL,
    )
    warmup_ratio: Fraction = Field(0.1, description="share of the steps in which the learning rate rises")
    weight_decay: NonNegative = Field(0.05, description="of AdamW")
    adam_betas: tuple[Decay, Decay] = Field((0.9, 0.98), description="of AdamW")
    adam_epsilon: Positive = Field(1e-8, description="of AdamW")
    max_grad_norm: Positive = Field(1.0, description="norm that gradients are clipped to")
    seed: Seed | None = Field(None, description="of the order of pairs and of corruption; default: the recipe's")

    # What moves
    tuning: Literal["full", "lora"] = Field("lora", description="all weights of what is not frozen, or adapters")
    quantization: Literal["nf4"] | None = Field(None, description="QLoRA: frozen weights in 4 bits (needs a GPU)")
    lora: Lora = Field(Lora(), description="of tuning: lora")
    freeze_vision: bool = Field(True, description="the vision tower stays as it is")
    freeze_projector: bool = Field(True, description="the projector stays as it is")

    # Long rows
    max_length: Count | None = Field(None, description="tokens of prompt and response; default: the model's positions")
    too_long: Literal["error", "cut", "skip"] = Field(
        "error", description="cut takes response tokens only: the prompt and its image tokens are never cut"
    )

    # Ties; with `error` there are none.
    ties: Literal["error", "skip"] = Field(
        "error",
        description="rows whose two answers are the same text: skip leaves them out and counts them",
        json_schema_extra=NEUTRAL,
    )

    # Evaluation while training
    eval_dataset: DatasetName | None = Field(None, description="held-out pairs, in the schema of the dataset")
    eval_split: str | None = Field(None, description="default: train")
    eval_steps: Count = Field(50, description="optimiser steps between two evaluations")
    patience: Count | None = Field(
        None, description="stop after this many evaluations without a lower loss, and keep the best weights"
    )

    # How it runs
    workers: Workers = Field(
        "auto",
        description="processes, a GPU each where there are GPUs; auto: as many as there are GPUs, and one without; not "
        "read under torchrun",
        json_schema_extra=NEUTRAL,
    )
    sharding: Literal["ddp", "fsdp"] = Field(
        "ddp", description="fsdp splits the language model over the workers", json_schema_extra=NEUTRAL
    )
    dtype: Dtype | Auto = Field(
        "auto",
        description="of the forward passes; auto: the recipe's, else bfloat16 where all GPUs have it and float32 "
        "elsewhere",
    )
    gradient_checkpointing: bool | Auto = Field(
        "auto",
        description="compute activations again in the backward pass, to save memory; auto: on a GPU without room for "
        "them",
        json_schema_extra=NEUTRAL,
    )
    share_prefix: bool = Field(
        True, description="run prompt and image once for all answers of a pair", json_schema_extra=NEUTRAL
    )
    share_image_features: bool = Field(
        True, description="run the vision tower once per distinct image of a batch", json_schema_extra=NEUTRAL
    )
    cache_image_features: bool = Field(
        False, description="keep features between batches while memory lasts", json_schema_extra=NEUTRAL
    )
    image_threads: Annotated[int, Field(strict=True, ge=0, le=256)] | Auto = Field(
        "auto",
        description="threads that read the images of the next pass while one runs; 0: none; auto: up to 8 with a GPU, "
        "and 0 without",
        json_schema_extra=NEUTRAL,
    )
    keep_prepared: bool = Field(
        True,
        description="tokenise the rows once and keep that beside the dataset, for later runs and other workers",
        json_schema_extra=NEUTRAL,
    )
    cache_reference: bool = Field(
        True,
        description="compute the reference once and keep it, beside the dataset where that can be, else in output_dir",
        json_schema_extra=NEUTRAL,
    )
    group_by_length: bool = Field(
        True, description="pairs of like length share a forward pass", json_schema_extra=NEUTRAL
    )
    head_on_responses: bool = Field(
        True, description="language-model head on response positions only", json_schema_extra=NEUTRAL
    )
    last_layer_on_responses: bool = Field(
        True, description="the last decoder layer on response positions only", json_schema_extra=NEUTRAL
    )
    attention_in_one_call: bool = Field(
        True,
        description="attention of all pairs of a pass in one kernel: on a GPU, with bfloat16",
        json_schema_extra=NEUTRAL,
    )
    fused_adapters: bool = Field(
        True, description="add an adapter's product onto its layer's output in one kernel", json_schema_extra=NEUTRAL
    )
    head_chunk: Count | None = Field(
        4096,
        description="response tokens per pass through the language-model head; with fsdp always all",
        json_schema_extra=NEUTRAL,
    )
    logging_steps: Count = Field(
        10, description="optimiser steps between two lines of metrics", json_schema_extra=NEUTRAL
    )
    save_steps: Count = Field(100, description="optimiser steps between two checkpoints", json_schema_extra=NEUTRAL)
    resume: Literal["never", "if-possible", "always"] = Field(
        "always",
        description="a run of other options, rows or weights in output_dir: always refuses it, if-possible trains anew "
        "and says so; never trains anew whatever is there. true is always, false is never",
        json_schema_extra=NEUTRAL,
    )
    wandb_project: Name | None = Field(
        None,
        description="also log to Weights & Biases, with the key that it knows",
        json_schema_extra=NEUTRAL,
    )

    @field_validator("resume", mode="before")
    @classmethod
    def _resume_word(cls, value: Any) -> Any:
        return {True: "always", False: "never"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = tuple(self._unknown()) or tuple(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unknown(self) -> list[str]:
        """What is wrong with code that is not ours."""
        problems = {key: slot.problem() for key, slot in self.slots().items()}
        return [f"{key}: {problem}" for key, problem in problems.items() if problem is not None]

    def _problems(self) -> list[str]:
        problems = []
        if self.micro_batch_size != "auto" and self.micro_batch_size > self.batch_size:
            problems.append(
                f"micro_batch_size={self.micro_batch_size} is larger than batch_size={self.batch_size}; lower it"
            )
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            problems.append(
                f"loss_weights has {len(self.loss_weights)} value(s) for {len(self.loss_type)} loss_type(s); "
                "give one each"
            )
        if len(set(self.loss_type)) < len(self.loss_type):
            problems.append(
                "loss_type names one twice, which would count it twice; name each once, or use loss_weights"
            )
        if not self._learns():
            terms = [f"weights.{term}" for term in ("response", *self.addition.terms)]
            problems.append(
                f"objective={self.objective} trains on nothing: every loss has weight 0; raise one of "
                f"{', '.join(terms)}" + (" (the response's also by loss_weights)" if self.loss_weights else "")
            )
        for part, frozen in (("vision", self.freeze_vision), ("projector", self.freeze_projector)):
            if frozen and getattr(self, f"{part}_learning_rate") is not None:
                problems.append(
                    f"{part}_learning_rate is for what moves, and freeze_{part}=true; set freeze_{part}=false with "
                    f"tuning=full, or take {part}_learning_rate out"
                )
        if not self.loss_type:
            problems.append('loss_type is empty; name at least one, for instance ["sigmoid"]')
        if self.tuning == "lora" and not (self.freeze_vision and self.freeze_projector):
            problems.append(
                "tuning=lora trains the language model only; set freeze_vision=true and freeze_projector=true, "
                "or tuning=full"
            )
        if self.quantization and self.tuning != "lora":
            problems.append(f"quantization={self.quantization} needs tuning=lora: 4-bit weights cannot be trained")
        if self.quantization and self.sharding == "fsdp":
            problems.append(f"quantization={self.quantization} cannot be split; set sharding=ddp, or quantization=null")
        if self.sharding == "fsdp" and self.tuning == "full" and not self.cache_reference:
            problems.append(
                "cache_reference=false keeps a whole copy of the model on every worker, which sharding=fsdp is to "
                "avoid; set cache_reference=true, or tuning=lora"
            )
        if self.cache_image_features and not (
            self.share_image_features and self.freeze_vision and self.freeze_projector
        ):
            problems.append(
                "cache_image_features=true needs features that never change: set share_image_features=true, "
                "freeze_vision=true and freeze_projector=true, or cache_image_features=false"
            )
        if not self.use_images and self.addition.reads:
            problems.append(f"use_images=false leaves {self.objective} nothing to compare; use objective=dpo")
        if unused := sorted(set(self.loss_options) - set(self.loss_type)):
            problems.append(f"loss_options: {unused[0]} is not in loss_type; name one of {', '.join(self.loss_type)}")
        if self.probe_image and not self.use_images:
            problems.append("probe_image=true needs images; set use_images=true, or probe_image=false")
        if "corrupted" in self.anchors and self.objective != "mdpo":
            problems.append(f"anchors: corrupted needs objective=mdpo, not {self.objective}; take it out")
        if len(set(self.anchors)) < len(self.anchors):
            problems.append("anchors names one twice, which would count it twice; name each once")
        if self.patience is not None and self.eval_dataset is None:
            problems.append("patience needs evaluations; set eval_dataset, or patience=null")
        if self.corruption.kind == "clip_mask" and self.corruption.clip_model is None:
            problems.append("corruption.kind=clip_mask needs corruption.clip_model, for instance scenes-clip")
        return problems

    def _learns(self) -> bool:
        """Whether any weight of a loss is above zero."""
        if self.sft is not None and self.sft.weight > 0:
            return True
        given = {
            "response": any(self.loss_weights) if self.loss_weights is not None else True,
            "anchor": bool(self.anchors) or self.objective not in OBJECTIVES,
        }
        return any(weight > 0 and given.get(term, True) for term, weight in self.term_weights.items())

    def slots(self) -> dict[str, Slot]:
        """Where code that is not ours may be named."""
        return {
            "corruption.kind": self.corruption.slot,
            "dataset_format": schema_slot(self.dataset_format, self.dataset_format_options),
            "objective": objective_slot(self.objective, self.objective_options),
            **{f"loss_type.{name}": loss_slot(name, self.loss_options.get(name, {})) for name in self.loss_type},
        }

    def plug_in(self, key: str) -> Any:
        """The object that is named there; None if it is one of ours."""
        return self.slots()[key].open()

    @property
    def plugins(self) -> dict[str, str]:
        """Path, version and options of all code that is not ours, by where it is named."""
        identities = {key: slot.identity() for key, slot in self.slots().items()}
        return {key: identity for key, identity in identities.items() if identity is not None}

    @property
    def precision(self) -> Dtype:
        """What ``dtype`` comes to: ``training.config.by_hardware`` has settled it where there are GPUs."""
        return "float32" if self.dtype == "auto" else self.dtype

    @property
    def processes(self) -> int:
        """What ``workers`` comes to: ``training.config.by_hardware`` has settled it where there are GPUs."""
        return 1 if self.workers == "auto" else self.workers

    @property
    def pass_pairs(self) -> int:
        """What ``micro_batch_size`` comes to: ``training.loop.pass_size`` has settled it where there are GPUs."""
        return min(PASS_PAIRS, self.batch_size) if self.micro_batch_size == "auto" else self.micro_batch_size

    @property
    def addition(self) -> Addition:
        """What the objective adds to the response term."""
        plug_in = self.plug_in("objective")
        return OBJECTIVES[self.objective] if plug_in is None else Addition(plug_in.reads, tuple(plug_in.weights))

    @property
    def term_weights(self) -> dict[str, float]:
        """Every term that is trained on, in the order in which they are summed."""
        plug_in = self.plug_in("objective")
        weights = vars(self.weights) if plug_in is None else plug_in.weights
        return {"response": self.weights.response, **{term: weights[term] for term in self.addition.terms}}

    @property
    def probes(self) -> bool:
        """Whether the corrupted image is only measured."""
        return self.probe_image and not self.addition.reads

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The sequences of a pair whose log-probs the objective reads, and last what is only measured."""
        return ("chosen", "rejected", *self.addition.reads, *(("corrupted",) if self.probes else ()))

    @property
    def needs_corrupted(self) -> bool:
        """Whether the chosen answer is also read next to the corrupted image."""
        return "corrupted" in self.branches

    @property
    def needs_similar(self) -> bool:
        """Whether the similar image and its answer are read."""
        return not set(SIMILAR).isdisjoint(self.branches)

    def result_options(self) -> dict[str, Any]:
        """The options that change the trained weights, as JSON values; a checkpoint of others is not resumed."""
        # Held-out pairs only measure, unless they decide when to stop.
        measured = () if self.patience is not None else ("eval_dataset", "eval_split", "eval_steps")
        # Runs from before there was a draw hold.
        unset = ("draw",) if self.draw is None else ()
        left_out = (*measured, *unset, *_OF_OTHERS)
        options = {key: value for key, value in super().result_options().items() if key not in left_out}
        return (
            options | {"dtype": self.precision} | {f"plugins.{key}": identity for key, identity in self.plugins.items()}
        )

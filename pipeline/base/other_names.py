"""What other tools of the field call an option: TRL, transformers, PEFT, vLLM, OpenAI, LLaMA-Factory, ms-swift, Ray."""

from __future__ import annotations

from collections.abc import Collection

#: Their name -> ours; the first that a group has is meant.
_OURS: dict[str, tuple[str, ...]] = {
    "lr": ("learning_rate",),
    "vision_lr": ("vision_learning_rate",),
    "vit_lr": ("vision_learning_rate",),
    "aligner_lr": ("projector_learning_rate",),
    "num_train_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "n_epochs": ("epochs",),
    "epoch": ("epochs",),
    "steps": ("max_steps",),
    "train_batch_size": ("batch_size",),
    "global_batch_size": ("batch_size",),
    "gradient_accumulation_steps": ("batch_size",),
    "per_device_train_batch_size": ("micro_batch_size",),
    "train_micro_batch_size_per_gpu": ("micro_batch_size",),
    "warmup_steps": ("warmup_ratio",),
    "max_gradient_norm": ("max_grad_norm",),
    "gradient_clipping": ("max_grad_norm",),
    "num_generations": ("n",),
    "num_return_sequences": ("n",),
    "num_samples": ("n", "limit"),
    "best_of": ("n",),
    "max_new_tokens": ("max_tokens",),
    "max_completion_tokens": ("max_tokens",),
    "max_completion_length": ("max_tokens", "max_length"),
    "max_pixels": ("max_image_pixels",),
    "model_name": ("model",),
    "model_id": ("model",),
    "model_path": ("model",),
    "model_name_or_path": ("model",),
    "base_model": ("model", "base"),
    "dataset_name": ("dataset", "path"),
    "dataset_path": ("dataset", "path"),
    "data": ("dataset", "path"),
    "data_path": ("dataset", "path"),
    "file": ("path",),
    "url": ("base_url", "path"),
    "api_base": ("base_url",),
    "max_seq_length": ("max_length",),
    "max_seq_len": ("max_length",),
    "cutoff_len": ("max_length",),
    "model_max_length": ("max_length",),
    "tp": ("tensor_parallel_size",),
    "torch_dtype": ("dtype",),
    "bf16": ("dtype",),
    "fp16": ("dtype",),
    "precision": ("dtype",),
    "loss": ("loss_type",),
    "dpo_loss": ("loss_type",),
    "pref_loss": ("loss_type",),
    "rpo_alpha": ("loss_weights",),
    "pref_beta": ("beta",),
    "finetuning_type": ("tuning",),
    "train_type": ("tuning",),
    "use_lora": ("tuning",),
    "use_peft": ("tuning",),
    "lora_r": ("lora", "r"),
    "lora_rank": ("lora", "r"),
    "rank": ("r",),
    "lora_alpha": ("lora", "alpha"),
    "lora_dropout": ("lora", "dropout"),
    "load_in_4bit": ("quantization",),
    "quantization_bit": ("quantization",),
    "freeze_vit": ("freeze_vision",),
    "freeze_aligner": ("freeze_projector",),
    "report_to": ("wandb_project",),
    "num_workers": ("workers",),
    "nproc_per_node": ("workers",),
    "num_gpus": ("workers",),
    "fsdp": ("sharding",),
    "deepspeed": ("sharding",),
    "resume_from_checkpoint": ("resume",),
    "image_folder": ("root", "image_root"),
    "image_dir": ("root", "image_root"),
    "images_dir": ("root", "image_root"),
    "benchmarks": ("suites",),
    "tasks": ("suites",),
}


def our_name(name: str, names: Collection[str]) -> str | None:
    """Which of ``names`` is meant by what another tool calls it.

    >>> our_name("lr", ["learning_rate", "epochs"]), our_name("num_generations", ["n"]), our_name("lr", ["n"])
    ('learning_rate', 'n', None)
    """
    return next((ours for ours in _OURS.get(name.lower(), ()) if ours in names), None)

"""What a model is to an evaluation: its kind, its head, its limits."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from torch import nn

from sightline.errors import ModelError
from sightline.evaluation.token_losses import Head

SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier")
"""Names under which configurations keep a factor on the logits (Cohere, Muse Glimmer, Falcon-H1)."""
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names under which they keep a soft cap on the logits (Gemma, RecurrentGemma, xLSTM)."""

STATELESS = ("torch.nn.", "transformers.", "peft.peft_model", "peft.tuners.lora.")
"""Where the modules live of which two threads may run one at once."""
MLP_PRODUCTS = 3
"""Matrices of a gated MLP; others have two."""
WORTH_A_THREAD = 100_000
"""Weights of a body below which a pass is Python rather than arithmetic, and two threads only wait for each other."""


class Kind(StrEnum):
    """What the labels of a row mean."""

    CAUSAL = "causal"
    """The next token, at every position."""
    ENCODER_DECODER = "encoder_decoder"
    """The decoder's sequence."""
    MASKED = "masked"
    """The token, or the class of the token, at the same position."""
    CLASSIFIER = "classifier"
    """The class, the classes or the number of the whole row."""


def inner_model(model: nn.Module) -> nn.Module:
    """Return the module to call: without a data-parallel wrapper, whose forward waits for the other ranks."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model


def base_model(model: nn.Module) -> Any:
    """Return the transformers model inside parallel, compiled and adapter wrappers."""
    found: Any = inner_model(model)
    for name in ("_orig_mod", "_fsdp_wrapped_module"):
        found = getattr(found, name, found)
    return found.get_base_model() if hasattr(found, "get_base_model") else found


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the language model, None where there is none."""
    config: Any = getattr(base_model(model), "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def kind_of(model: nn.Module) -> Kind:
    """Say what the labels of a model's rows mean.

    Raises
    ------
    ModelError
        If the model has no head to predict with.
    """
    base = base_model(model)
    name = type(base).__name__
    if "ForSequenceClassification" in name:
        return Kind.CLASSIFIER
    if "ForTokenClassification" in name or "ForMaskedLM" in name:
        return Kind.MASKED
    if output_embeddings(model) is None:
        raise ModelError(f"{name} has no language modelling head; load it with AutoModelForCausalLM")
    if getattr(getattr(base, "config", None), "is_encoder_decoder", False):
        return Kind.ENCODER_DECODER
    return Kind.CAUSAL


def output_embeddings(model: nn.Module) -> nn.Module | None:
    """Return the module that makes logits, adapters around it included."""
    base = base_model(model)
    found = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else getattr(base, "lm_head", None)
    return found if isinstance(found, nn.Module) else None


def head_of(model: nn.Module) -> Head | None:
    """Return the head with what the configuration says is done to its logits, None for a model without one."""
    module = output_embeddings(model)
    if module is None:
        return None
    config = text_config(model)
    scale = 1.0
    for name in SCALES:
        value = getattr(config, name, None)
        if isinstance(value, int | float):
            scale *= float(value)
    scaling = getattr(config, "logits_scaling", None)
    if isinstance(scaling, int | float) and scaling:
        model_type = getattr(config, "model_type", "")
        if model_type == "hyperclovax":
            scale *= float(scaling)
        elif model_type != "minicpm3":  # which divides the hidden states by it, before its head is given them
            scale /= float(scaling)  # Granite
    cap = next((value for name in CAPS if (value := getattr(config, name, None))), None)
    return Head(module, scale, float(cap) if cap else None)


def body_weights(model: nn.Module) -> int:
    """Return how many weights every token is multiplied by on its way to the head, experts it does not meet included."""
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    looked_up |= {id(getattr(output_embeddings(model), "weight", None))}
    return sum(weight.numel() for weight in model.parameters() if weight.dim() > 1 and id(weight) not in looked_up)


def last_mlp(model: nn.Module) -> nn.Module | None:
    """Return the MLP of the last layer, None where there is none that plainly treats each position by itself."""
    base = base_model(model)
    body = getattr(base, getattr(base, "base_model_prefix", "") or "model", None)
    stack = getattr(body, "layers", getattr(body, "h", None))
    mlp = getattr(stack[-1], "mlp", None) if isinstance(stack, nn.ModuleList) and len(stack) else None
    if not isinstance(mlp, nn.Module):
        return None
    products = {n: m for n, m in mlp.named_modules() if type(m) is nn.Linear or type(m).__name__ == "Conv1D"}
    weighted = {id(weight) for module in products.values() for weight in module.parameters()}
    plain = all(id(weight) in weighted for weight in mlp.parameters())
    own = [name for name in products if "lora_" not in name]
    return mlp if plain and 0 < len(own) <= MLP_PRODUCTS else None  # experts have more


def context_length(model: nn.Module) -> int | None:
    """Return how many tokens the model can read, None where its configuration sets no limit."""
    config = text_config(model)
    names = ["max_position_embeddings", "n_positions", "n_ctx"]
    if getattr(config, "is_encoder_decoder", False):
        names = names[:1]  # T5 keeps an n_positions that its relative positions do not need
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def vocabulary_size(model: nn.Module) -> int | None:
    """Return how many token ids the input embeddings know."""
    size = getattr(_input_embeddings(model), "num_embeddings", None)
    return int(size) if isinstance(size, int) else None


def head_size(model: nn.Module) -> int | None:
    """Return how many ids the head predicts, None where the head does not say."""
    module = output_embeddings(model)
    size = getattr(module, "out_features", None)
    return int(size) if isinstance(size, int) else None


def pad_id(model: nn.Module) -> int | None:
    """Return the id that the model knows as padding."""
    value = getattr(text_config(model), "pad_token_id", None)
    return value if isinstance(value, int) and value >= 0 else None


def device_of(model: nn.Module) -> torch.device:
    """Return the device the input goes to."""
    source = _input_embeddings(model)
    parameters = (source if isinstance(source, nn.Module) else base_model(model)).parameters()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def is_sharded(model: nn.Module) -> bool:
    """Whether every forward needs all ranks at once (FSDP, DeepSpeed ZeRO-3), so that they must make equally many."""
    kinds = {base.__name__ for kind in {type(module) for module in model.modules()} for base in kind.__mro__}
    return not kinds.isdisjoint(("FSDPModule", "FullyShardedDataParallel")) or any(
        hasattr(parameter, "ds_id") for parameter in model.parameters()
    )


def is_split(model: nn.Module) -> bool:
    """Whether the ranks hold parts of one model and must all see the same rows (tensor parallelism)."""
    tensors = any("DTensor" in type(parameter).__name__ for parameter in model.parameters())
    return tensors and not is_sharded(model)


def may_run_twice(model: nn.Module) -> bool:
    """Whether two threads may run the model's forward at once: it is known to keep nothing from one call to the next.

    transformers' own models keep nothing, but for rotary embeddings that follow the longest row seen and a
    configuration that is changed for the length of a call. Wrappers and hooks of anyone else may keep what they like.
    """
    config = text_config(model)
    if getattr(config, "is_causal", None) is not None or torch.is_autocast_enabled("cpu"):
        return False
    return body_weights(model) >= WORTH_A_THREAD and all(_keeps_nothing(module) for module in model.modules())


def _keeps_nothing(module: nn.Module) -> bool:
    """Whether a module's forward is of a library known for it, and nothing is hung on it that is not."""
    rope = getattr(module, "rope_type", "")
    changing = any(
        "dynamic" in kind or kind == "longrope" for kind in (rope.values() if isinstance(rope, dict) else [rope])
    )
    own_forward = getattr(vars(module).get("forward"), "__module__", "sightline.")
    hooks = [own_forward, *(getattr(hook, "__module__", "") for hook in _hooks(module))]
    return (
        not changing
        and type(module).__module__.startswith(STATELESS)
        and all(str(name).startswith(("sightline.", "transformers.")) for name in hooks)
        and getattr(module, "_compiled_call_impl", None) is None
    )


def _hooks(module: nn.Module) -> list[Any]:
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def _input_embeddings(model: nn.Module) -> Any:
    base = base_model(model)
    try:
        return base.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None

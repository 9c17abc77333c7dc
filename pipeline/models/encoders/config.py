"""The configuration of a pretrained encoder, checked before anything is prepared or trained."""

from pathlib import Path
from typing import Any

from pipeline.errors import DataError, ParamsError
from pipeline.models.encoders.families import FAMILIES, config_class, family_of
from pipeline.models.names import COUNTED_FROM_PADDING, BackboneSpec, hub_path, too_many_layers
from pipeline.tasks.hub import prepare_for

_SIZES = (
    *("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings"),
    *("intermediate_size", "hidden_dim", "embedding_size", "num_hidden_groups", "inner_group_num", "type_vocab_size"),
)
"""Fields of a configuration that are sizes; a family has most of them."""


def read_config(spec: BackboneSpec, mirror: Path | None) -> Any:
    """The Transformers configuration of a backbone that has a hub name or folder. No code of its author is run.

    Raises:
        DataError: missing, unreadable, or of sizes that no encoder has.
        ParamsError: another family, or a backbone that `layers` cannot cut so.
    """
    assert spec.hub is not None
    where = hub_path(spec.hub, mirror)
    prepare_for(where)
    try:
        config = _config_at(where)
    except Exception as error:  # a wrong config.json raises many kinds
        raise not_to_be_had(spec, "configuration", error) from None
    if config.model_type not in FAMILIES:
        raise ParamsError(
            f"backbones.{spec.name}: {spec.hub!r} is a {config.model_type!r}; known families: {', '.join(FAMILIES)}"
        )
    wrong = _wrong_field(config)
    if wrong:
        raise DataError(f"backbones.{spec.name}: config.json of {spec.hub!r}: {wrong}; mend it or take another model")
    check_shape(config, spec.layers, f"backbones.{spec.name}", spec.hub)
    return config


def _config_at(where: str) -> Any:
    """The configuration at a hub name or folder, as its family's where Transformers does not know its model type."""
    from transformers import AutoConfig, PretrainedConfig

    fields, _ = PretrainedConfig.get_config_dict(where)
    family = family_of(fields)
    if family is None:
        return AutoConfig.from_pretrained(where, trust_remote_code=False)
    return config_class(FAMILIES[family]).from_dict({**fields, "model_type": family})


def check_shape(config: Any, layers: int | None, key: str, name: str) -> None:
    """Check that an encoder of a configuration can be cut to `layers`, and has absolute positions.

    Args:
        key: dotted name of the backbone in params.yaml.
        name: name of the model in messages.

    Raises:
        ParamsError: one of the two is not so.
    """
    has, groups = config.num_hidden_layers, getattr(config, "num_hidden_groups", 1)
    if layers is not None and layers > has:
        raise too_many_layers(key, layers, name, has)
    if layers is not None and layers < has and groups > 1:
        raise ParamsError(f"{key}.layers: {layers}; {name} is an ALBERT of {groups} groups, take `layers` out")
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise ParamsError(f"{key}: {name} has {positions!r} positions; take a model with absolute positions")


def not_to_be_had(spec: BackboneSpec, what: str, error: Exception) -> DataError:
    """The error for a part of a model that cannot be loaded."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(
        f"backbones.{spec.name}: no {what} for {spec.hub!r} ({reason}); check the name and the network, "
        "or name a mirror on disk with HUB_MIRROR"
    )


def _wrong_field(config: Any) -> str | None:
    """The first field of which no encoder can be made, with its value; None where there is none."""
    for name in _SIZES:
        value = getattr(config, name, 1)
        if type(value) is not int or value < 1:
            return f"{name} is {value!r}, not a whole number above 0"
    if config.hidden_size % config.num_attention_heads:
        return f"hidden_size {config.hidden_size} is no multiple of num_attention_heads {config.num_attention_heads}"
    padding, counted = config.pad_token_id, config.model_type in COUNTED_FROM_PADDING
    if not (type(padding) is int and 0 <= padding < config.vocab_size) and (counted or padding is not None):
        return f"pad_token_id is {padding!r}, not one of {config.vocab_size} words"
    family = FAMILIES[config.model_type]
    if config.model_type == "mpnet" and (padding, config.relative_attention_num_buckets) != (1, 32):
        # Transformers' model has both as constants, whatever the configuration says.
        return (
            f"pad_token_id and relative_attention_num_buckets are {padding!r} and "
            f"{config.relative_attention_num_buckets!r}, not 1 and 32 as in every MPNet"
        )
    rates = {name: getattr(config, name) for name in family.dropout if name is not None}
    for name, rate in rates.items():
        if type(rate) not in (int, float) or not 0 <= rate <= 1:
            return f"{name} is {rate!r}, not a rate in 0..1"
    from transformers.activations import ACT2FN

    activation = config.activation if config.model_type == "distilbert" else config.hidden_act
    known = list(ACT2FN)
    return None if activation in known else f"activation {activation!r} is none of {', '.join(known)}"

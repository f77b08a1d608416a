"""What the tokenizer or image processor of a transformers folder gives a model, by its settings and its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from export import files
from export.errors import FileError, RecipeError

TOKENIZER, PICTURES = "tokenizer_config.json", "preprocessor_config.json"
TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "merges.txt", "*.model")
TEXT, PIXELS = ("input_ids", "attention_mask", "token_type_ids"), ("pixel_values", "pixel_mask")


def settings(path: Path) -> dict[str, Any]:
    """A JSON file of the folder; empty where it is missing or none."""
    try:
        found = files.read_json(path)
    except (FileError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def given(folder: Path, model_type: str, main: str) -> tuple[str, ...]:
    """The tensors that the folder's processor gives for a model whose main input is `main`."""
    written = settings(folder / (TOKENIZER if main in TEXT else PICTURES))
    names = written.get("model_input_names")
    if isinstance(names, list):
        return tuple(map(str, names))
    for name in _classes(written, model_type, main):
        import transformers

        known = getattr(transformers, name, None) or getattr(transformers, name.removesuffix("Fast"), None)
        if names := getattr(known, "model_input_names", None):
            return tuple(names)
    return TEXT[:2] if main in TEXT else PIXELS[:1]


def _classes(written: Mapping[str, Any], model_type: str, main: str) -> Iterator[str]:
    """The names of the processor's class, the likeliest first: its own settings', then its architecture's."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    keys = ("tokenizer_class",) if main in TEXT else ("image_processor_type", "feature_extractor_type")
    yield from (str(written[key]) for key in keys if written.get(key))
    usual = (TOKENIZER_MAPPING_NAMES if main in TEXT else IMAGE_PROCESSOR_MAPPING_NAMES).get(model_type)
    several = usual.values() if isinstance(usual, Mapping) else usual if isinstance(usual, tuple) else (usual,)
    yield from (str(name) for name in several if name)


def not_added(folder: Path, source: str, main: str, shape: tuple[int, ...]) -> str:
    """A sentence about the preprocessing that stays with the client, and how it is done there."""
    if main in TEXT:
        if not any(found for pattern in TOKENIZER_FILES for found in folder.glob(pattern)):
            return "the folder has no tokenizer: clients send the token ids of the model's own vocabulary"
        made = f"AutoTokenizer.from_pretrained({source!r})"
        return f"the tokenizer is not added: clients send token ids, as {made} makes them"
    rule = settings(folder / PICTURES)
    if not rule:
        return f"no {PICTURES} says how a picture becomes {main} {list(shape)}: clients send them as in training"
    steps = [f"pixels {list(shape)}"]
    if rule.get("do_rescale", True):
        steps.append(f"times {float(rule.get('rescale_factor', 1 / 255)):.6g}")
    if rule.get("do_normalize", True) and rule.get("image_mean") and rule.get("image_std"):
        steps.append(f"less the mean {rule['image_mean']}, divided by {rule['image_std']}")
    return f"the image processor is not added: clients send {main} as {PICTURES} has them, {', '.join(steps)}"


def longest(config: Any, folder: Path) -> int:
    """The most tokens a text may have: the tokenizer's limit, else the positions less the padding's offset."""
    limit = settings(folder / TOKENIZER).get("model_max_length")
    positions = int(getattr(config, "max_position_embeddings", 512) or 512)
    offset = 2 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer") else 0
    return int(limit) if isinstance(limit, int | float) and 0 < limit <= positions else max(1, positions - offset)


def picture(config: Any, folder: Path) -> tuple[int, int]:
    """Height and width of the pictures the network was trained on."""
    size = getattr(config, "image_size", None)
    if size is None:
        rule = settings(folder / PICTURES)
        size = rule.get("crop_size") if rule.get("do_center_crop") else rule.get("size")
    if isinstance(size, Mapping):
        size = [size["height"], size["width"]] if "height" in size else size.get("shortest_edge")
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[1])
    if size is None:
        raise RecipeError(
            f"neither {folder.name}/config.json nor {PICTURES} names the size of the pictures",
            remedy="save the model's image processor there with save_pretrained()",
        )
    return int(size), int(size)

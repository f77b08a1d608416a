"""A transformers model from a local folder or the hub: an encoder over tokens, or a model over pixels."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export import refusals
from export.brought import Brought
from export.errors import RecipeError
from export.models import weights as weight_files
from export.onnx_file import quiet
from export.recipe import Weights
from export.source_torch import Traced

TOKENS = "tokens"
EXAMPLE_TOKENS = 32
TEXT = ("input_ids", "attention_mask", "token_type_ids")


def find(source: str) -> Weights:
    """The folder's files. Raises RecipeError for pickled weights, or where something is missing."""
    refusals.not_a_pickle(Path(source), "give the folder that save_pretrained() wrote, which holds model.safetensors")
    try:
        return weight_files.find(source, needs=("config.json",))
    except RecipeError as error:
        raise RecipeError(str(error).replace("--weights", "--hf")) from error


def load(source: str, home: Path) -> Brought:
    """Load the architecture that config.json names, with the weights of model.safetensors."""
    del home
    with quiet():  # before transformers is imported, which then draws no progress bars either
        return _load(source)


def _load(source: str) -> Brought:
    import torch

    weights = find(source)
    folder = weights.folder
    assert folder is not None
    cls = _architecture(folder)
    network, report = cls.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise RecipeError(
            f"{folder.name} has no weights for {', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''}, and "
            "transformers would make them up: save the trained model again with save_pretrained()"
        )
    network.eval()
    example, axes, sizes, longest = _inputs(network, folder)
    traced = Traced(network, example, axes, call=_call)
    description = f"{cls.__name__} from {weights.description}"
    return traced.brought(description, notes=_left_out(folder), sizes=sizes, longest=longest, made_up=True)


def _left_out(folder: Path) -> tuple[str, ...]:
    """A sentence about what sentence-transformers puts behind the transformers model, if it does."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        behind = [str(module["type"]).rpartition(".")[2] for module in modules[1:]]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    if not behind:
        return ()
    return (
        f"modules.json puts {', '.join(behind)} behind the transformers model, which is not added: the outputs are "
        "those of the tokens; add the whole with --torch package.module:function",
    )


def _architecture(folder: Path) -> Any:
    import transformers

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = (settings.get("architectures") or [None])[0]
    if named is None:
        raise RecipeError(
            f"{folder.name}/config.json names no architecture: save the model with save_pretrained(), which writes it"
        )
    cls = getattr(transformers, named, None)
    if cls is None:
        own = "its own code, which would be run to load it" if settings.get("auto_map") else "a newer transformers"
        raise RecipeError(
            f"transformers {transformers.__version__} has no {named}: the folder needs {own}; write a function that "
            "builds the module and add it with --torch package.module:function"
        )
    if cls.can_generate():
        raise RecipeError(
            f"{named} generates token by token, which one ONNX graph does not serve well: use Triton's vLLM or "
            "TensorRT-LLM backend for it"
        )
    return cls


def _inputs(
    network: Any, folder: Path
) -> tuple[dict[str, Any], dict[str, dict[int, str]], dict[str, int], dict[str, int]]:
    """Example tensors of two rows, the axes to open beside the batch, and the sizes of those."""
    import torch

    config = network.config
    main = network.main_input_name
    if main == "input_ids":
        taken = inspect.signature(network.forward).parameters
        wanted = _json(folder / "tokenizer_config.json").get("model_input_names") or TEXT[:2]
        names = [name for name in TEXT if name in taken and name in ("input_ids", *wanted)]
        tokens = torch.ones(2, 12, dtype=torch.int64)
        example = {name: torch.zeros_like(tokens) if name == "token_type_ids" else tokens.clone() for name in names}
        longest = _longest(config, folder)
        axes = {name: {1: TOKENS} for name in names}
        return example, axes, {TOKENS: min(EXAMPLE_TOKENS, longest)}, {TOKENS: longest}
    if main == "pixel_values":
        height, width = _picture(config, folder)
        channels = int(getattr(config, "num_channels", 3))
        return {main: torch.zeros(2, channels, height, width)}, {}, {}, {}
    raise RecipeError(
        f"{type(network).__name__} takes '{main}', and Fathom knows the shapes of input_ids and pixel_values "
        "only: write a function that returns (module, example) and add it with --torch package.module:function"
    )


def _longest(config: Any, folder: Path) -> int:
    """The most tokens a text may have: the tokenizer's limit, else the positions less the padding's offset."""
    limit = _json(folder / "tokenizer_config.json").get("model_max_length")
    positions = int(getattr(config, "max_position_embeddings", 512) or 512)
    offset = 2 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer") else 0
    return int(limit) if isinstance(limit, int | float) and 0 < limit <= positions else max(1, positions - offset)


def _picture(config: Any, folder: Path) -> tuple[int, int]:
    """Height and width of the pictures the network was trained on."""
    size = getattr(config, "image_size", None)
    if size is None:
        rule = _json(folder / "preprocessor_config.json")
        size = rule.get("crop_size") if rule.get("do_center_crop") else rule.get("size")
    if isinstance(size, Mapping):
        size = [size["height"], size["width"]] if "height" in size else size.get("shortest_edge")
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[1])
    if size is None:
        raise RecipeError(
            f"neither {folder.name}/config.json nor preprocessor_config.json names the size of the pictures: save the "
            "model's image processor there with save_pretrained()"
        )
    return int(size), int(size)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _call(network: Any, tensors: Mapping[str, Any]) -> Any:
    return network(**tensors, return_dict=True)

"""Import a transformers model from a local folder or the hub: an encoder over tokens, or a model over pixels."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import files
from export.errors import ExportError, FileError, RecipeError
from export.graph.onnx_file import quiet, reason
from export.recipe import weight_files
from export.recipe.recipe import Weights
from export.sources import hf_processor
from export.sources.base import ImportedModel
from export.sources.from_torch import Axes, Traced
from export.sources.hf_processor import PIXELS, TEXT

TOKENS = "tokens"
EXAMPLE_TOKENS = 32
EXTRA_OUTPUTS = ("output_hidden_states", "output_attentions", "use_cache", "use_mems_eval")
"""Settings that add a tensor of each layer to the answer."""

_NO_DATA = (
    r"self|kwargs|.*labels?|.*_positions?|(output|return|use)_.*|.*(inputs|image)_embeds|encoder_.*|past_key_values|mems|"
    r"(decoder_)?position_ids|.*head_mask|cache_position|logits_to_keep|interpolate_pos_encoding|bool_masked_pos"
)
NO_DATA = {True: re.compile(_NO_DATA), False: re.compile(_NO_DATA + "|attention_mask")}
"""Arguments of forward() that no processor gives: targets, switches, and what the model else makes itself. By whether
the model takes text."""


@dataclass(frozen=True)
class Inputs:
    """Example tensors of two rows, the axes to open beside the batch, their sizes and the longest they may be, and the
    arguments of forward() that carry data and are not among them."""

    example: Mapping[str, Any]
    axes: Axes
    sizes: Mapping[str, int]
    longest: Mapping[str, int]
    left_out: Sequence[str]


def find(source: str) -> Weights:
    """The folder's files. Raises RecipeError for pickled weights, or where something is missing."""
    return weight_files.find(source, needs=("config.json",), option="--hf")


def load(source: str, home: Path) -> ImportedModel:
    """Load the architecture that config.json names, with the weights of model.safetensors.

    Raises RecipeError for what transformers does not load.
    """
    del home
    with quiet():  # before transformers is imported, which then draws no progress bars either
        try:
            return _load(source)
        except (ExportError, ImportError, MemoryError):
            raise
        except Exception as error:  # of a broken folder: transformers, torch and safetensors raise many kinds
            raise RecipeError(
                f"{source} is not a folder that transformers can load ({type(error).__name__}: {reason(error)})",
                remedy="save the model again with save_pretrained()",
            ) from error


def _load(source: str) -> ImportedModel:
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
            "transformers would make them up",
            remedy="save the trained model again with save_pretrained()",
        )
    network.eval()
    plain = [name for name in EXTRA_OUTPUTS if getattr(network.config, name, False)]
    for name in plain:
        setattr(network.config, name, False)
    main, kind = network.main_input_name, network.config.model_type
    inputs = _inputs(network, hf_processor.given(folder, kind, main), folder)
    shape = tuple(inputs.example[main].shape[1:])
    notes = [*_behind(folder), hf_processor.not_added(folder, source, main, shape)]
    if inputs.left_out:
        notes.append(
            f"{cls.__name__} also takes {', '.join(inputs.left_out)}, which the served model does not: it answers as "
            "without them; to serve them, add a function that returns (module, example) with --torch"
        )
    if beside := [name for name in plain if name.startswith("output_")]:
        notes.append(f"config.json has {', '.join(beside)}: these outputs are not served")
    if getattr(network.config, "problem_type", None) == "multi_label_classification":
        notes.append(
            "a text or picture may have several labels: the sigmoid of each number of 'logits' is its probability"
        )
    example_name = f"an example without {', '.join(inputs.left_out)}" if inputs.left_out else "its example"
    return Traced(network, inputs.example, inputs.axes, _call, example_name).imported(
        f"{cls.__name__} from {weights.description}",
        notes=tuple(notes),
        sizes=inputs.sizes,
        longest=inputs.longest,
        labels=_class_names(network.config, cls.__name__),
        made_up=True,
    )


def _behind(folder: Path) -> tuple[str, ...]:
    """A sentence about what sentence-transformers applies after the transformers model, if anything."""
    try:
        modules = files.read_json(folder / "modules.json")
        behind = [str(module["type"]).rpartition(".")[2] for module in modules[1:]]
    except (FileError, OSError, KeyError, TypeError):
        return ()
    if not behind:
        return ()
    return (
        f"modules.json puts {', '.join(behind)} behind the transformers model, which is not added: the outputs are "
        "those of the tokens; add the whole with --torch package.module:function",
    )


def _architecture(folder: Path) -> Any:
    import transformers

    settings = files.read_json(folder / "config.json")
    named = (settings.get("architectures") or [None])[0]
    if named is None:
        raise RecipeError(
            f"{folder.name}/config.json names no architecture",
            remedy="save the model with save_pretrained(), which writes it",
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
            f"{named} generates token by token, which one ONNX graph does not serve well",
            remedy="use Triton's vLLM or TensorRT-LLM backend for it",
        )
    return cls


def _inputs(network: Any, given: tuple[str, ...], folder: Path) -> Inputs:
    """Two rows of the tensors that the architecture takes and the folder's processor gives."""
    import torch

    config, main = network.config, network.main_input_name
    taken = inspect.signature(network.forward).parameters
    known = TEXT if main in TEXT else PIXELS
    idle = ("token_type_ids",) if int(getattr(config, "type_vocab_size", 2)) < 2 else ()  # tells nothing apart
    names = [name for name in known if name == main or (name in taken and name in given and name not in idle)]
    silent = NO_DATA[main in TEXT]
    left_out = [
        name for name in taken if name not in names and (name in given or not (name in idle or silent.fullmatch(name)))
    ]
    if main == "input_ids":
        tokens = torch.ones(2, 12, dtype=torch.int64)
        example = {name: torch.zeros_like(tokens) if name == "token_type_ids" else tokens.clone() for name in names}
        longest = hf_processor.longest(config, folder)
        axes = {name: {1: TOKENS} for name in names}
        return Inputs(example, axes, {TOKENS: min(EXAMPLE_TOKENS, longest)}, {TOKENS: longest}, left_out)
    if main == "pixel_values":
        height, width = hf_processor.picture(config, folder)
        shapes = {main: (2, int(getattr(config, "num_channels", 3)), height, width), "pixel_mask": (2, height, width)}
        example = {name: torch.ones(shapes[name], dtype=None if name == main else torch.int64) for name in names}
        return Inputs(example, {}, {}, {}, left_out)
    raise RecipeError(
        f"{type(network).__name__} takes '{main}', and Fathom knows the shapes of input_ids and pixel_values only",
        remedy="write a function that returns (module, example) and add it with --torch package.module:function",
    )


def _class_names(config: Any, architecture: str) -> dict[str, list[str]]:
    """The class names of a classifier, by output; none for a single score, nor for the numbers of classes that nobody
    named."""
    names = getattr(config, "id2label", None) or {}
    ordered = [str(names[index]) for index in range(len(names)) if index in names]
    numbered = all(re.fullmatch(r"LABEL_\d+", name) for name in ordered)
    classifier = re.search("Classification|Detection|Segmentation", architecture)
    if not classifier or numbered or not 1 < len(ordered) == len(names):
        return {}
    return {"logits": ordered}


def _call(network: Any, tensors: Mapping[str, Any]) -> Any:
    return network(**tensors, return_dict=True)

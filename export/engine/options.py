"""The options of an engine build, and the builder configuration made from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from export.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt

HARDWARE_COMPATIBILITY = ("none", "ampere-plus", "same-compute-capability")
TILING = ("none", "fast", "moderate", "full")
GB = 10**9


@dataclass(frozen=True)
class EngineOptions:
    """The build's options; None leaves TensorRT's own default.

    `workspace_gb` (10^9 bytes) bounds scratch memory, by default all of the GPU's. `builder_optimization_level` is 0
    (fast build) to 5. `max_aux_streams` 0 builds for a single stream and least memory. `hardware_compatibility`
    "ampere-plus" runs on newer GPUs too, with 48 KiB of shared memory per block; "same-compute-capability" on other
    GPUs of the same one. A `version_compatible` engine runs in newer TensorRT versions, and may be slower. `tf32`
    lets FP32 convolutions and products round to 10 bits of mantissa. `tuned_batch` is the batch to be fastest at.
    """

    workspace_gb: float | None = None
    builder_optimization_level: int | None = None
    tiling: str | None = None
    max_aux_streams: int | None = None
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    tf32: bool = True
    tuned_batch: int | None = None

    def __post_init__(self) -> None:
        for field, fits, wanted in (
            ("workspace_gb", self.workspace_gb is None or self.workspace_gb > 0, "greater than 0 GB"),
            ("builder_optimization_level", self.builder_optimization_level in (None, *range(6)), "between 0 and 5"),
            ("max_aux_streams", self.max_aux_streams is None or self.max_aux_streams >= 0, "0 or more"),
            (
                "hardware_compatibility",
                self.hardware_compatibility in HARDWARE_COMPATIBILITY,
                f"one of {', '.join(HARDWARE_COMPATIBILITY)}",
            ),
            ("tiling", self.tiling in (None, *TILING), f"one of {', '.join(TILING)}"),
        ):
            if not fits:
                found = getattr(self, field)
                raise EngineError(
                    f"{field.replace('_', '-')} is {found}", remedy=f"it must be {wanted}", field=field, found=found
                )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, for the engine's record."""
        return asdict(self)


def configure(trt: Any, config: trt.IBuilderConfig, options: EngineOptions) -> None:
    """Write the options into a builder configuration. Precision is not among them: it lives in the ONNX graph."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_gb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace_gb * GB))
    if options.builder_optimization_level is not None:
        config.builder_optimization_level = options.builder_optimization_level
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.tiling is not None:
        config.tiling_optimization_level = {
            "none": trt.TilingOptimizationLevel.NONE,
            "fast": trt.TilingOptimizationLevel.FAST,
            "moderate": trt.TilingOptimizationLevel.MODERATE,
            "full": trt.TilingOptimizationLevel.FULL,
        }[options.tiling]
    config.hardware_compatibility_level = {
        "none": trt.HardwareCompatibilityLevel.NONE,
        "ampere-plus": trt.HardwareCompatibilityLevel.AMPERE_PLUS,
        "same-compute-capability": trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY,
    }[options.hardware_compatibility]
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)

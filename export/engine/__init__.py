"""TensorRT: profiles, engines, their records, and the GPU they are built on."""

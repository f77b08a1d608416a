"""Pictures: MobileNetV2 and what else `image_classifier` can be made of."""

"""From a trained model to an artefact in the model repository: recipe, ONNX, contract, gate, manifest, publish."""

"""From a trained CGN to a plan: checkpoint readers, inference forms, ONNX, parity."""

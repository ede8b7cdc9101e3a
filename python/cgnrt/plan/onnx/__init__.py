"""Reading the ONNX graphs of a plan without trusting them."""

"""Runtimes of the image side: torch, onnxruntime and OpenVINO."""

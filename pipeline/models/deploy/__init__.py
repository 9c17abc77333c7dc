"""Models that leave the house: ONNX segments in a folder, and what answers with them (docs/design/deploy.md)."""

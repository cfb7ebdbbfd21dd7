"""Write a fitted model as a file for other programs: ONNX, OpenVINO, and a page for the browser."""

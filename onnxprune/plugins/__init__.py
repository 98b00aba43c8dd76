"""onnxprune as a part of other tools: each file needs the tool that it is named after."""

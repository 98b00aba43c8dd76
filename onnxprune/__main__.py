"""`python -m onnxprune`: the command line."""

from onnxprune.cli import main

main()

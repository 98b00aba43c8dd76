"""Benchmarks of latency, memory and file size: single layers, whole networks, or two files of your own.

Protocol: every engine has its own process, and the engines alternate in short bursts, so that a slow phase of the
machine affects all of them. Times are medians over the rounds; speedups are medians of the ratios of each round.
Weights and inputs are warm. Before timing, the outputs of every engine are compared with those of dense onnxruntime.
"""

"""Latency, memory and size side by side: one layer at a time, whole networks, or two files of your own.

Protocol: every engine lives in a process of its own, and they run in turns, each for a burst, so that a slow spell of
the machine hits all of them. Times are medians over the bursts, ratios the medians of the bursts' ratios. Weights and
inputs are warm. Before a row is timed, every engine's outputs are compared with those of dense onnxruntime.
"""

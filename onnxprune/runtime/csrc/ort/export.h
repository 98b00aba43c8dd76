// Marks the entry points of the library; all else is hidden.
#pragma once

#if defined(_WIN32)
#define ONNXPRUNE_EXPORT __declspec(dllexport)
#else
#define ONNXPRUNE_EXPORT __attribute__((visibility("default")))
#endif

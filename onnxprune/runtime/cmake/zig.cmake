# A compiler for another Linux, from the package ziglang: the environment variable ONNXPRUNE_TARGET names it as
# ARCHITECTURE-linux-gnu.GLIBC (aarch64-linux-gnu.2.28), and ZIG the program. The library needs that glibc or a later
# one, and has its C++ library within.
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "$ENV{ONNXPRUNE_TARGET}")
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_CXX_COMPILER "$ENV{ZIG}" c++ -target "$ENV{ONNXPRUNE_TARGET}")
# Its libraries do not run the destructors of their statics when they are unloaded, as onnxruntime does with the last
# session: at the end of the process these would be called where nothing is. So the library stays.
set(CMAKE_MODULE_LINKER_FLAGS_INIT "-s -Wl,-z,nodelete")

# The official headers of onnxruntime, from the first place that has them.

# Sets `result` to the folder of the headers, or to nothing.
function(find_onnxruntime_headers result)
  set(${result} "" PARENT_SCOPE)
  foreach(source IN ITEMS given installed npm release)
    cmake_language(CALL _headers_${source} found)
    if(found AND EXISTS "${found}/onnxruntime_c_api.h")
      file(STRINGS "${found}/onnxruntime_c_api.h" version REGEX "#define ORT_API_VERSION [0-9]+")
      string(REGEX MATCH "[0-9]+$" version "${version}")
      # Below, there is no KernelContext_ParallelFor.
      if(version GREATER_EQUAL 17)
        set(${result} "${found}" PARENT_SCOPE)
        return()
      endif()
    endif()
  endforeach()
endfunction()

function(_headers_given result)
  set(${result} "${ONNXRUNTIME_INCLUDE_DIR}" PARENT_SCOPE)
endfunction()

# Debian's libonnxruntime-dev, Homebrew's onnxruntime, an unpacked release.
function(_headers_installed result)
  find_path(INSTALLED_ONNXRUNTIME_HEADERS onnxruntime_c_api.h
    PATH_SUFFIXES onnxruntime onnxruntime/core/session)
  set(${result} "${INSTALLED_ONNXRUNTIME_HEADERS}" PARENT_SCOPE)
endfunction()

# A package for Unity that carries them.
function(_headers_npm result)
  set(${result} "" PARENT_SCOPE)
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/npm")
  set(archive "${folder}/com.github.asus4.onnxruntime-0.4.9.tgz")
  find_program(NPM npm)
  if(NPM AND NOT EXISTS "${archive}")
    file(MAKE_DIRECTORY "${folder}")
    execute_process(COMMAND "${NPM}" pack com.github.asus4.onnxruntime@0.4.9 --silent
      WORKING_DIRECTORY "${folder}" TIMEOUT 300 OUTPUT_QUIET ERROR_QUIET)
  endif()
  if(EXISTS "${archive}")
    file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${folder}" PATTERNS "*/Headers/*.h")
    file(GLOB_RECURSE found "${folder}/package/*/onnxruntime_c_api.h")
    if(found)
      list(GET found 0 first)
      get_filename_component(first "${first}" DIRECTORY)
      set(${result} "${first}" PARENT_SCOPE)
    endif()
  endif()
endfunction()

# The archive of a release, for its headers alone.
function(_headers_release result)
  set(${result} "" PARENT_SCOPE)
  set(name "onnxruntime-linux-x64-1.23.2")
  set(archive "${CMAKE_CURRENT_BINARY_DIR}/${name}.tgz")
  file(DOWNLOAD "https://github.com/microsoft/onnxruntime/releases/download/v1.23.2/${name}.tgz" "${archive}"
    STATUS status TIMEOUT 300)
  list(GET status 0 failed)
  if(failed)
    file(REMOVE "${archive}")
    return()
  endif()
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${CMAKE_CURRENT_BINARY_DIR}" PATTERNS "*/include/*.h")
  set(${result} "${CMAKE_CURRENT_BINARY_DIR}/${name}/include" PARENT_SCOPE)
endfunction()

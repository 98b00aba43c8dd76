# The official headers of onnxruntime, from the first place that has them. What is downloaded is checked against the
# SHA-256 of the archive that this file was written for.

set(RELEASE_VERSION "1.27.1")
set(RELEASE_SHA256 "25b1ef1fea1acd210d63f8f24dc870ad6e077795ce1f54876252c6d3803c15af")

set(NPM_PACKAGE "com.github.asus4.onnxruntime")
set(NPM_VERSION "0.4.9")
set(NPM_SHA256 "e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d")

# The first version with KernelContext_ParallelFor.
set(MIN_API_VERSION 17)

# Sets `result` to the folder of the headers, or to nothing, and then `reason` to a sentence that says why.
function(find_onnxruntime_headers result reason)
  set(${result} "" PARENT_SCOPE)
  set(refusals "")
  foreach(source IN ITEMS given installed release npm)
    set(refusal "")
    cmake_language(CALL _headers_${source} found origin refusal)
    if(refusal)
      message(WARNING "${refusal}")
      string(APPEND refusals " ${refusal}")
    endif()
    if(NOT found)
      continue()
    endif()
    _api_version("${found}" version)
    if(version GREATER_EQUAL MIN_API_VERSION)
      message(STATUS "onnxruntime headers: API version ${version}, ${origin}, in ${found}")
      set(${result} "${found}" PARENT_SCOPE)
      return()
    endif()
    message(STATUS "onnxruntime headers: passed over API version ${version}, ${origin}, in ${found}")
  endforeach()
  set(${reason} "the headers of onnxruntime (onnxruntime_c_api.h, API version ${MIN_API_VERSION} or later) were not \
found when the package was installed.${refusals} Install them (Debian: libonnxruntime-dev, Homebrew: onnxruntime), or \
npm to download them with, or name their folder: \
pip install --config-settings=cmake.define.ONNXRUNTIME_INCLUDE_DIR=FOLDER" PARENT_SCOPE)
endfunction()

# Sets `version` to that of the headers in `folder`; 0 where there are none.
function(_api_version folder version)
  set(${version} 0 PARENT_SCOPE)
  if(EXISTS "${folder}/onnxruntime_c_api.h")
    file(STRINGS "${folder}/onnxruntime_c_api.h" line REGEX "#define ORT_API_VERSION [0-9]+")
    string(REGEX MATCH "[0-9]+$" number "${line}")
    set(${version} "${number}" PARENT_SCOPE)
  endif()
endfunction()

# Each _headers_SOURCE sets `found` to a folder or to nothing, `origin` to where that is from, and `refusal` to a
# sentence where what it got cannot be trusted.

function(_headers_given found origin refusal)
  set(${found} "${ONNXRUNTIME_INCLUDE_DIR}" PARENT_SCOPE)
  set(${origin} "named by ONNXRUNTIME_INCLUDE_DIR" PARENT_SCOPE)
endfunction()

# Debian's libonnxruntime-dev, Homebrew's onnxruntime, an unpacked release.
function(_headers_installed found origin refusal)
  find_path(INSTALLED_ONNXRUNTIME_HEADERS onnxruntime_c_api.h
    PATH_SUFFIXES onnxruntime onnxruntime/core/session)
  if(INSTALLED_ONNXRUNTIME_HEADERS)
    set(${found} "${INSTALLED_ONNXRUNTIME_HEADERS}" PARENT_SCOPE)
  else()
    set(${found} "" PARENT_SCOPE)
  endif()
  set(${origin} "installed on this machine" PARENT_SCOPE)
endfunction()

# The archive of a release, for its headers alone.
function(_headers_release found origin refusal)
  set(${found} "" PARENT_SCOPE)
  set(name "onnxruntime-linux-x64-${RELEASE_VERSION}")
  set(url "https://github.com/microsoft/onnxruntime/releases/download/v${RELEASE_VERSION}/${name}.tgz")
  set(archive "${CMAKE_CURRENT_BINARY_DIR}/${name}.tgz")
  set(${origin} "release ${RELEASE_VERSION}, ${url}" PARENT_SCOPE)
  if(NOT EXISTS "${archive}")
    message(STATUS "onnxruntime headers: downloading ${url}")
    file(DOWNLOAD "${url}" "${archive}" STATUS status TIMEOUT 300)
    list(GET status 0 failed)
    if(failed)
      file(REMOVE "${archive}")
      return()
    endif()
  endif()
  _unpack("${archive}" "${RELEASE_SHA256}" "${url}" "*/include/*.h" folder wrong)
  set(${refusal} "${wrong}" PARENT_SCOPE)
  if(folder)
    set(${found} "${folder}/${name}/include" PARENT_SCOPE)
  endif()
endfunction()

# A package for Unity that carries them.
function(_headers_npm found origin refusal)
  set(${found} "" PARENT_SCOPE)
  set(${origin} "npm package ${NPM_PACKAGE} ${NPM_VERSION}" PARENT_SCOPE)
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/npm")
  set(archive "${folder}/${NPM_PACKAGE}-${NPM_VERSION}.tgz")
  find_program(NPM NAMES npm.cmd npm)  # Windows has both, and runs the first
  if(NPM AND NOT EXISTS "${archive}")
    message(STATUS "onnxruntime headers: downloading npm package ${NPM_PACKAGE} ${NPM_VERSION}")
    file(MAKE_DIRECTORY "${folder}")
    execute_process(COMMAND "${NPM}" pack "${NPM_PACKAGE}@${NPM_VERSION}" --silent
      WORKING_DIRECTORY "${folder}" TIMEOUT 300 OUTPUT_QUIET ERROR_QUIET)
  endif()
  if(NOT EXISTS "${archive}")
    return()
  endif()
  _unpack("${archive}" "${NPM_SHA256}" "npm package ${NPM_PACKAGE} ${NPM_VERSION}" "*/Headers/*.h" folder wrong)
  set(${refusal} "${wrong}" PARENT_SCOPE)
  if(folder)
    file(GLOB_RECURSE headers "${folder}/package/*/onnxruntime_c_api.h")
  endif()
  if(headers)
    list(GET headers 0 first)
    get_filename_component(first "${first}" DIRECTORY)
    set(${found} "${first}" PARENT_SCOPE)
  endif()
endfunction()

# Unpacks the files that `pattern` names beside the archive, and sets `folder` to where they are. Where the sum is not
# `expected`, removes the archive, and sets `wrong` to a sentence and `folder` to nothing.
function(_unpack archive expected name pattern folder wrong)
  set(${wrong} "" PARENT_SCOPE)
  set(${folder} "" PARENT_SCOPE)
  file(SHA256 "${archive}" sum)
  if(NOT sum STREQUAL expected)
    file(REMOVE "${archive}")
    set(${wrong} "${name} was refused: its SHA-256 is ${sum}, not ${expected}, so the download is damaged or the \
archive was replaced; try again, and if that does not help use one of the other ways." PARENT_SCOPE)
    return()
  endif()
  get_filename_component(beside "${archive}" DIRECTORY)
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${beside}" PATTERNS "${pattern}")
  set(${folder} "${beside}" PARENT_SCOPE)
endfunction()

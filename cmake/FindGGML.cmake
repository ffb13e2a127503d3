# Finds ggml's dot products as scripts/fetch_ggml.sh builds them, as GGML::Dots: first GGML_ROOT (variable or environment),
# then the cache that the script fills. A static library without dependencies: only its licence has to be installed
# (GGML_LICENSE), beside the command that holds it.
set(_ggml_cache $ENV{FA_GGML_CACHE})
if(NOT _ggml_cache)
  set(_ggml_cache $ENV{XDG_CACHE_HOME})
  if(NOT _ggml_cache)
    set(_ggml_cache $ENV{HOME}/.cache)
  endif()
  set(_ggml_cache ${_ggml_cache}/fastattention/ggml-0.3.36)
endif()

find_library(GGML_DOTS_LIBRARY NAMES libggml_dots.a HINTS ${_ggml_cache}/lib)
mark_as_advanced(GGML_DOTS_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(GGML REQUIRED_VARS GGML_DOTS_LIBRARY
  REASON_FAILURE_MESSAGE "run scripts/fetch_ggml.sh")

if(GGML_FOUND AND NOT TARGET GGML::Dots)
  add_library(GGML::Dots STATIC IMPORTED)
  set_target_properties(GGML::Dots PROPERTIES IMPORTED_LOCATION ${GGML_DOTS_LIBRARY})
  cmake_path(GET GGML_DOTS_LIBRARY PARENT_PATH _ggml_lib)
  cmake_path(GET _ggml_lib PARENT_PATH _ggml_root)
  set(GGML_LICENSE ${_ggml_root}/LICENSE.txt)
endif()

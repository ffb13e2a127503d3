# Finds oneDNN 3 (its C API is the only one used) as OneDNN::OneDNN: first OneDNN_ROOT (variable or environment),
# then the cache that scripts/fetch_onednn.sh fills, then the system. Debian 12's oneDNN 2 is passed over.
#
# A copy found outside the system is put beside the built libraries and installed beside the installed ones, and
# every later target gets a relative RPATH, so that build tree and installation run without it.
set(_onednn_cache $ENV{FA_ONEDNN_CACHE})
if(NOT _onednn_cache)
  set(_onednn_cache $ENV{XDG_CACHE_HOME})
  if(NOT _onednn_cache)
    set(_onednn_cache $ENV{HOME}/.cache)
  endif()
  set(_onednn_cache ${_onednn_cache}/fastattention/onednn-3.2.0)
endif()

find_path(OneDNN_INCLUDE_DIR oneapi/dnnl/dnnl.h HINTS ${_onednn_cache}/include)
# By soname: version 2's libdnnl.so must not be linked against version 3's headers.
find_library(OneDNN_LIBRARY NAMES libdnnl.so.3 HINTS ${_onednn_cache}/lib)
if(NOT OneDNN_LIBRARY)
  file(GLOB _onednn_system /usr/lib/*/libdnnl.so.3.* /usr/lib/libdnnl.so.3.* /usr/lib64/libdnnl.so.3.*)
  if(_onednn_system)
    list(GET _onednn_system 0 _onednn_system)
    set(OneDNN_LIBRARY ${_onednn_system} CACHE FILEPATH "oneDNN 3" FORCE)
  endif()
endif()
mark_as_advanced(OneDNN_INCLUDE_DIR OneDNN_LIBRARY)

set(_onednn_usable FALSE)
if(OneDNN_INCLUDE_DIR)
  file(STRINGS ${OneDNN_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h _onednn_lines
    REGEX "define DNNL_VERSION_(MAJOR|MINOR|PATCH)")
  string(REGEX REPLACE "[^0-9;]" "" _onednn_lines "${_onednn_lines}")
  string(REPLACE ";" "." OneDNN_VERSION "${_onednn_lines}")
  if(OneDNN_VERSION VERSION_GREATER_EQUAL 3.2)
    set(_onednn_usable TRUE)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OneDNN REQUIRED_VARS OneDNN_LIBRARY OneDNN_INCLUDE_DIR _onednn_usable
  VERSION_VAR OneDNN_VERSION
  REASON_FAILURE_MESSAGE "run scripts/fetch_onednn.sh, or set OneDNN_ROOT to a oneDNN 3 built for OpenMP")

if(OneDNN_FOUND AND NOT TARGET OneDNN::OneDNN)
  set(_onednn_location ${OneDNN_LIBRARY})
  if(NOT OneDNN_LIBRARY MATCHES "^/usr/lib")
    file(REAL_PATH ${OneDNN_LIBRARY} _onednn_real)
    set(_onednn_location ${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/libdnnl.so.3)
    file(MAKE_DIRECTORY ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
    configure_file(${_onednn_real} ${_onednn_location} COPYONLY)
    install(FILES ${_onednn_location} DESTINATION ${CMAKE_INSTALL_LIBDIR})
    list(APPEND CMAKE_INSTALL_RPATH "$ORIGIN" "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  endif()
  add_library(OneDNN::OneDNN SHARED IMPORTED)
  set_target_properties(OneDNN::OneDNN PROPERTIES
    IMPORTED_LOCATION ${_onednn_location}
    INTERFACE_INCLUDE_DIRECTORIES ${OneDNN_INCLUDE_DIR})
endif()

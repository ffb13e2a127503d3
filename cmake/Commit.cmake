# fa_commit.h: the commit this was built from, looked up at each build and rewritten only when it changed.
# Run as a script (cmake -P) it writes the file; included, it declares the target that does.
if(CMAKE_SCRIPT_MODE_FILE)
  cmake_minimum_required(VERSION 3.25)
  execute_process(COMMAND git describe --always --exclude=* --dirty --abbrev=12 WORKING_DIRECTORY ${SOURCE_DIR}
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed OR commit STREQUAL "")
    set(commit "unknown")
  endif()
  file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define FA_COMMIT \"${commit}\"\n" @ONLY)
  return()
endif()

set(FA_GENERATED_DIR ${PROJECT_BINARY_DIR}/generated)
add_custom_target(fa_commit BYPRODUCTS ${FA_GENERATED_DIR}/fa_commit.h
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DOUTPUT=${FA_GENERATED_DIR}/fa_commit.h
          -P ${CMAKE_CURRENT_LIST_FILE}
  VERBATIM)

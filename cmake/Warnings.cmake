# Warnings every target of ours is built with; FA_WERROR turns them into errors.
option(FA_WERROR "Treat warnings as errors" OFF)
add_library(fa_warnings INTERFACE)
target_compile_options(fa_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes
  -Wundef -Wvla -Wno-unknown-warning-option
  $<$<BOOL:${FA_WERROR}>:-Werror>)

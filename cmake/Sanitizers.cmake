# FA_SANITIZE=address,undefined or FA_SANITIZE=thread, for every target. Thread needs clang with libomp, whose
# archer tells the sanitizer about OpenMP's barriers; gcc's libgomp does not and reports races that are none.
set(FA_SANITIZE "" CACHE STRING "Comma-separated sanitizers for every target (empty: none)")
if(FA_SANITIZE)
  add_compile_options(-fsanitize=${FA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${FA_SANITIZE})
endif()
